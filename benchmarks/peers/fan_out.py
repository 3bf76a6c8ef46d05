"""Metaflow's side of the same: a foreach over WIDTH keys, with nothing to do in any. It runs in its environment."""

import os

from metaflow import FlowSpec, step


class FanOut(FlowSpec):
    """start, one per key, join, end."""

    @step
    def start(self):
        self.keys = list(range(int(os.environ["WIDTH"])))
        self.next(self.one, foreach="keys")

    @step
    def one(self):
        self.made = self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.made = [each.made for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        assert len(self.made) == int(os.environ["WIDTH"])  # noqa: S101


if __name__ == "__main__":
    FanOut()
