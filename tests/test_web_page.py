"""The one writer of HTML, and the one list of colours."""

import base64
import hashlib
import re
from pathlib import Path

import sdfn_jax
from sdfn_jax.core import palette, web_page

HOSTILE = "<script>alert('1')</script> & \"x\""
ESCAPED = "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt; &amp; &quot;x&quot;"


def test_whatever_is_text_is_escaped():
    cells = [web_page.cell(HOSTILE)]
    for made in (
        web_page.paragraph(HOSTILE),
        web_page.note(HOSTILE),
        web_page.table(HOSTILE, [(HOSTILE, cells)], [(HOSTILE, None)]),
        "".join(web_page.frame(HOSTILE, web_page.policy(""), "", [])),
    ):
        assert "<script>" not in made
        assert ESCAPED in made


def test_a_page_runs_and_asks_for_nothing_that_its_policy_does_not_name():
    style, script = web_page.style("p { margin: 0; }"), "run();"
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    said = web_page.policy(style, script)
    assert said.startswith(f"default-src 'none'; script-src 'sha256-{digests[0]}'; style-src 'sha256-{digests[1]}'; ")
    assert "connect-src 'none'" in said
    assert "connect-src 'self'" in web_page.policy(style, script, connect=True)
    assert "script-src" not in web_page.policy(style)


def test_the_style_holds_every_colour_of_light_dark_and_print():
    style = web_page.style()
    for colours in (palette.LIGHT, palette.DARK, palette.PRINT):
        for name, colour in colours.items():
            assert f"--{name}: {colour};" in style
    used = set(re.findall(r"var\(--([a-z-]+)\)", style))
    assert used <= palette.LIGHT.keys()
    assert palette.LIGHT.keys() == palette.DARK.keys()


def test_no_other_python_file_names_a_colour():
    package = Path(sdfn_jax.__file__).parent
    others = [path for path in package.rglob("*.py") if path.name != "palette.py"]
    named = [path.name for path in others if re.search(r"[\"\']#[0-9A-Fa-f]{6}[\"\']", path.read_text("utf-8"))]
    assert named == []
