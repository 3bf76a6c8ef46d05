"""The neural candidate's network and how it is trained, in PyTorch: only the processes that train import this file."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from assets.flights.parameters import NeuralParameters

# The last rows, which are the latest days, on which it is seen after how many epochs the network has learnt enough.
VALIDATION_SHARE = 0.15


class Network(nn.Module):
    """Embeddings of the categories beside the numbers, through layers with ReLU, to the log odds of arriving late.

    `assets.flights.neural` computes the same from the stored weights, by their names here.
    """

    def __init__(self, categories: Sequence[int], numbers: int, parameters: NeuralParameters) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(size, embedding_width(size)) for size in categories)
        first = sum(embedding_width(size) for size in categories) + numbers
        widths = [first, *[parameters.hidden_units] * parameters.layers]
        self.hidden = nn.ModuleList(nn.Linear(*neighbours) for neighbours in pairwise(widths))
        self.output = nn.Linear(parameters.hidden_units, 1)
        self.dropout = nn.Dropout(parameters.dropout)

    def forward(self, codes: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """The log odds of each row, from its categories' places in their vocabularies and its numbers."""
        embedded = [embedding(codes[:, n]) for n, embedding in enumerate(self.embeddings)]
        row = torch.cat([*embedded, numbers], dim=1)
        for layer in self.hidden:
            row = self.dropout(functional.relu(layer(row)))
        return self.output(row)[:, 0]


def embedding_width(size: int) -> int:
    """How many numbers stand for a category of so many values."""
    return min(16, math.ceil(size / 4))


@dataclass(frozen=True)
class Rows:
    """Rows to learn from, on the device that learns: moved there once, not batch by batch."""

    codes: torch.Tensor
    numbers: torch.Tensor
    late: torch.Tensor

    @classmethod
    def on(cls, device: torch.device, codes: np.ndarray, numbers: np.ndarray, late: np.ndarray) -> "Rows":
        """From arrays: places (n, categories), numbers (n, columns), late (n)."""
        return cls(
            torch.as_tensor(codes, dtype=torch.int64, device=device),
            torch.as_tensor(numbers, dtype=torch.float32, device=device),
            torch.as_tensor(late, dtype=torch.float32, device=device),
        )

    def __len__(self) -> int:
        return len(self.late)

    def __getitem__(self, rows: "slice | torch.Tensor") -> "Rows":
        return Rows(self.codes[rows], self.numbers[rows], self.late[rows])


class Recorded:
    """A step as the graph of its kernels, which a GPU repeats for other batches of the same size.

    The tensors are small: to start the kernels of a step one by one takes longer than to execute them, and a CPU would
    be as fast. The step was made before, so that all that it makes only once is there.
    """

    def __init__(self, step: Callable[[torch.Tensor], None], batch: torch.Tensor) -> None:
        self.batch = batch.clone()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            step(self.batch)

    def repeat(self, batch: torch.Tensor) -> None:
        """The step, by the rows of this batch."""
        self.batch.copy_(batch)
        self._graph.replay()


class Training:
    """A network on its way: each epoch shows it every row once, in batches of another order."""

    def __init__(self, rows: Rows, categories: Sequence[int], parameters: NeuralParameters) -> None:
        self._rows, self._batch_rows = rows, parameters.batch_rows
        torch.manual_seed(parameters.seed)
        # Made on the CPU, so that a network begins the same wherever it is trained.
        self.network = Network(categories, rows.numbers.shape[1], parameters).to(rows.late.device)
        self._order = torch.Generator(rows.late.device).manual_seed(parameters.seed)
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=parameters.learning_rate,
            weight_decay=parameters.weight_decay,
            fused=True,
            capturable=rows.late.is_cuda,  # so that a step can be recorded
        )
        self._recorded: Recorded | None = None

    def epoch(self) -> None:
        """Learn from each row once."""
        self.network.train()
        order = torch.randperm(len(self._rows), generator=self._order, device=self._order.device)
        batches = order.chunk(math.ceil(len(order) / self._batch_rows))
        for batch in batches:
            if self._recorded is not None and len(batch) == len(self._recorded.batch):
                self._recorded.repeat(batch)
            else:
                self._learn(batch)
        if self._recorded is None and order.is_cuda:
            self._recorded = Recorded(self._learn, batches[0])

    def _learn(self, batch: torch.Tensor) -> None:
        """One step, by the rows with these numbers."""
        loss = log_loss(self.network, self._rows[batch])
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()

    def validation_loss(self, rows: Rows) -> float:
        """The log loss on rows that it does not learn from."""
        self.network.eval()
        with torch.inference_mode():
            return log_loss(self.network, rows).item()


def log_loss(network: Network, rows: Rows) -> torch.Tensor:
    """The mean, in nats."""
    return functional.binary_cross_entropy_with_logits(network(rows.codes, rows.numbers), rows.late)


def best_epochs(rows: Rows, categories: Sequence[int], parameters: NeuralParameters) -> int:
    """After how many epochs the log loss on the last rows is lowest, when only the others are learnt from."""
    learnt = max(1, round(len(rows) * (1 - VALIDATION_SHARE)))
    if learnt == len(rows):
        return 1
    training = Training(rows[:learnt], categories, parameters)
    best, lowest = 1, math.inf
    for epoch in range(1, parameters.epochs + 1):
        training.epoch()
        if (loss := training.validation_loss(rows[learnt:])) < lowest:
            best, lowest = epoch, loss
        elif epoch - best >= parameters.patience:
            break
    return best


def trained_weights(
    codes: np.ndarray, numbers: np.ndarray, late: np.ndarray, categories: Sequence[int], parameters: NeuralParameters
) -> tuple[dict[str, np.ndarray], dict[str, str | int]]:
    """A network trained on all rows, for as many epochs as were best for the last of them.

    The rows are in the order of time: rows of one day share its weather, so that some of them would give away the
    others. The same rows on the same kind of device give the same weights.

    Returns:
        The weights by name, float32; and how it was trained: device, epochs.
    """
    with reproducibly():
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        rows = Rows.on(device, codes, numbers, late)
        epochs = best_epochs(rows, categories, parameters)
        training = Training(rows, categories, parameters)
        for _ in range(epochs):
            training.epoch()
        weights = {name: tensor.cpu().numpy() for name, tensor in training.network.state_dict().items()}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return weights, {"device": name, "epochs": epochs}


@contextmanager
def reproducibly() -> Iterator[None]:
    """One thread on the CPU, as all candidates have, and deterministic algorithms on a GPU, where there are such."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when a process first uses cuBLAS
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
