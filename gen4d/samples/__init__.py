"""Built-in samples: simulated scans of furnished rooms and parametric furniture. Nothing needs to be downloaded."""

from gen4d.samples.write import GENERATOR_VERSION, SamplesError, SamplesWritten, samples_digest, write_samples

__all__ = ["GENERATOR_VERSION", "SamplesError", "SamplesWritten", "samples_digest", "write_samples"]
