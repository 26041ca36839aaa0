"""The benchmark of cost against size, at a small one."""

import json

from benchmarks import scaling


def test_every_size_is_run_and_drawn(tmp_path, monkeypatch, capsys):
    rows, picture = tmp_path / "rows.json", tmp_path / "scaling.png"
    command = ["scaling.py", "--sizes", "400,800", "--repeats", "1", "--neuron-steps", "3200000"]
    monkeypatch.setattr("sys.argv", [*command, "--json", str(rows), "--picture", str(picture)])
    for setting in ("os.sched_setaffinity", "torch.set_num_threads", "torch.set_flush_denormal"):
        monkeypatch.setattr(setting, lambda *_: None)  # the test process has other tests to run
    scaling.main()
    written = json.loads(rows.read_text())
    assert [row["neurons"] for row in written] == [400, 800]
    for row in written:
        assert row["rate_hz"] > 1.0
        assert row["ns_per_neuron_step"] > 0.0
        assert row["steps"] * row["neurons"] == 3_200_000
    assert picture.stat().st_size > 1000
    assert len(capsys.readouterr().out.splitlines()) == 3
