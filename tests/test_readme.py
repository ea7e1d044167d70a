"""What the README says there is, is there."""

import re

from helpers import ROOT


def test_every_option_that_the_readme_names_has_its_file():
    table = re.search(r"## Options\n\n(.*?)\n\n", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    for line in table.splitlines()[2:]:
        groups, options = line.strip("| ").split(" | ", 1)
        for group, named in zip(groups.split(" · "), options.split(" · "), strict=True):
            folder = ROOT / "conf" / group.strip("`")
            listed = {path.stem for path in folder.glob("*.yaml")} - {"as_trained"}
            assert listed <= set(re.findall(r"`([\w]+)`", named)), group
