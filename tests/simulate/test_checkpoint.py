"""Saving and loading states."""

import importlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import bdtorch as bt


def system() -> bt.Network:
    cell = bt.neurons.Refractory(bt.neurons.LIF(8), 2.0)
    projection = bt.Projection(bt.connect.AllToAll(), 0.5, bt.synapses.Alpha(3.0), delay=1.0)
    noise = bt.stimuli.Poisson(8, 800.0)
    drive = bt.Projection(bt.connect.OneToOne(), 8.0, bt.synapses.Exponential(5.0))
    return bt.Network({"noise": noise, "E": cell}, {("noise", "E"): drive, ("E", "E"): projection})


def test_a_saved_run_resumes_to_the_bit(tmp_path):
    options = {"dt": 0.1, "record": {"s": bt.spikes("E")}}
    whole = bt.simulate(system(), 10.0, duration=60.0, **options)
    half = bt.simulate(system(), 10.0, duration=30.0, **options)
    bt.save(tmp_path / "half.safetensors", half.state, t=half.t_end)
    state, t = bt.load(tmp_path / "half.safetensors", bt.initial_state(system(), dt=0.1))
    assert t == 30.0
    rest = bt.simulate(system(), 10.0, duration=30.0, state=state, t0=t, **options)
    assert len(rest["s"]) > 0
    assert torch.equal(whole["s"].pairs, torch.cat([half["s"].pairs, rest["s"].pairs]))
    for (name, a), (_, b) in zip(bt._tree.named_leaves(whole.state), bt._tree.named_leaves(rest.state), strict=True):
        assert torch.equal(a, b), name


def test_what_does_not_fit_is_named(tmp_path):
    path = tmp_path / "state.safetensors"
    state = bt.initial_state(bt.neurons.LIF(3))
    with pytest.raises(FileNotFoundError, match=r"`load\(path=...\)`: there is no file"):
        bt.load(path, state)
    bt.save(path, state)
    with pytest.raises(ValueError, match=r"`load\(like=...\)`: expected the variables \['v'\], got \['v', 'w'\]"):
        bt.load(path, bt.initial_state(bt.neurons.AdEx(3)))
    with pytest.raises(ValueError, match=r"'v' is \(3,\) torch.float32 in the file, expected \(4,\)"):
        bt.load(path, bt.initial_state(bt.neurons.LIF(4)))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"expected a saved state, but .* cannot be read"):
        bt.load(path, state)
    save_file({"v": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="expected format 'bdtorch-state-1', got None"):
        bt.load(path, state)
    with pytest.raises(TypeError, match=r"`save\(state=...\)`: expected tensors only, got float for 'v'"):
        bt.save(path, {"v": 1.0})


def test_a_failed_save_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    bt.save(path, {"v": torch.ones(3)}, t=2.5)

    def full_disk(tensors, filename, metadata):
        Path(filename).write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(importlib.import_module("bdtorch.simulate.checkpoint"), "save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        bt.save(path, {"v": torch.zeros(3)})
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert torch.equal(load_file(path)["v"], torch.ones(3))


def test_the_file_is_plain_safetensors_with_a_json_header(tmp_path):
    path = tmp_path / "state.safetensors"
    bt.save(path, bt.initial_state(system(), dt=0.1), t=12.5)
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert header["__metadata__"]["t"] == "12.5"
    assert "E.neuron.v" in header
