"""Where a finding is: class activation maps (eq. 5, 6), boxes from them, their scores."""
