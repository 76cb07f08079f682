"""The page that lists the runs of a folder."""

from aggregation.report.run_list import HEADING, run_list_page

ROW = {
    "run": "<script>a",
    "title": "<img src=x>",
    "link": "a/report/index.html",
    "state": "finished",
    "failed": [],
    "simulated": True,
    "unsettled": True,
    "n_ratings": 12345,
    "n_users": 10,
    "accepted": 1,
    "undecided": None,
    "rejected": 0,
    "loss": 0.25,
    "started": "2026-01-01 00:00",
}


def test_a_run_is_one_row_with_its_numbers_escaped():
    failed = {"failed": [{"stage": "train", "link": "b/notebooks/train.failed.ipynb"}]}
    page = run_list_page([ROW, ROW | failed])
    assert HEADING in page
    assert page.count("<tr>") == 3
    assert '<a href="a/report/index.html"><bdi>&lt;script&gt;a</bdi></a>' in page
    assert "<img" not in page
    assert '<td class="num" data-value="12345">12,345</td>' in page
    assert '<td class="num">0.25000000</td>' in page
    assert "finished, simulated, fit not settled" in page
    assert 'failed at <a href="b/notebooks/train.failed.ipynb">train</a>' in page
    assert "2 runs in this folder" in page


def test_a_folder_without_runs_says_so():
    assert "There is no run in this folder yet." in run_list_page([])
