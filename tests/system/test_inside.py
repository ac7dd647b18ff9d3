"""Links out of a folder. Oracle: where each one was made to point."""

from octoscale.system.inside import is_inside, only_inside


def test_a_link_is_inside_if_what_it_leads_to_is(tmp_path):
    run, other = tmp_path / "run", tmp_path / "run2"
    for folder in (run / "scales", other):
        folder.mkdir(parents=True)
        (folder / "a").touch()
    links = {
        "own": run / "scales" / "a",
        "relative": "scales/../scales/a",
        "nothing": run / "absent",
        "beside": other / "a",  # its name begins as the folder's does
        "above": "..",
        "circle": run / "circle",
        "through": run / "beside",
    }
    for name, target in links.items():
        (run / name).symlink_to(target)
    inside = [name for name in links if is_inside(run / name, run)]
    assert inside == ["own", "relative", "nothing"]
    (tmp_path / "link").symlink_to(run)
    assert [name for name in links if is_inside(tmp_path / "link" / name, tmp_path / "link")] == inside


def test_what_stands_in_a_folder_that_leads_out_is_told_once(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    (run / "scales").mkdir(parents=True)
    other.mkdir()
    for name in "ab":
        (other / name).touch()
        (run / "scales" / name).touch()
    (run / "scales" / "c").symlink_to(other / "a")
    (run / "figures").symlink_to(other)
    paths = [run / folder / name for folder in ("scales", "figures") for name in "abc"]
    kept, lines = only_inside(paths, run)
    assert kept == paths[:2]
    assert [line.split(" is a link out")[0] for line in lines] == [str(paths[2]), str(run / "figures")]
