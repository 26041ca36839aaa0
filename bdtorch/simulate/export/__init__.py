"""Writing a native loop out, so that a simulation runs in another program, without Python."""

from bdtorch.simulate.export.export import export_loop as export_loop
