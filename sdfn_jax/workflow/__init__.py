"""The main job: which stages there are, what each needs, and running what is missing."""
