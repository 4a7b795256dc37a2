"""Models, data, training and testing, as in the quickstart."""

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

__all__ = ["NETS", "evaluate", "load_data", "train"]


class TwoLayers(nn.Module):
    """The 2NN of McMahan et al. 2017, for 28 x 28 images: 199,210 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, 200)
        self.fc2 = nn.Linear(200, 200)
        self.fc3 = nn.Linear(200, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))


class Convolutions(nn.Module):
    """The CNN of the same paper: 1,663,370 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(64 * 7 * 7, 512)
        self.fc2 = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


NETS = {"2nn": TwoLayers, "cnn": Convolutions}


@cache
def examples(place: str) -> tuple[Tensor, Tensor]:
    """Of all clients: inputs (clients, n, 1, 28, 28) and targets (clients, n). Read once a process, as the quickstart
    caches its FederatedDataset."""
    with safe_open(Path(place, "data.safetensors"), "pt") as file:
        return file.get_tensor("inputs"), file.get_tensor("targets")


def load_data(place: str, partition_id: int, batch_size: int, *, shuffle: bool) -> DataLoader:
    inputs, targets = examples(place)
    data = TensorDataset(inputs[partition_id], targets[partition_id])
    return DataLoader(data, batch_size=batch_size, shuffle=shuffle)


def train(net: nn.Module, trainloader: DataLoader, epochs: int, lr: float, device: torch.device) -> float:
    """Train in place; the mean loss over all batches."""
    net.to(device)
    criterion = nn.CrossEntropyLoss().to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    net.train()
    running_loss = 0.0
    for _ in range(epochs):
        for images, labels in trainloader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(net(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    return running_loss / (epochs * len(trainloader))


def evaluate(net: nn.Module, testloader: DataLoader, device: torch.device) -> tuple[float, float]:
    """Mean loss of the batches, and accuracy."""
    net.to(device)
    criterion = nn.CrossEntropyLoss()
    correct, loss = 0, 0.0
    net.eval()
    with torch.no_grad():
        for images, labels in testloader:
            images, labels = images.to(device), labels.to(device)
            outputs = net(images)
            loss += criterion(outputs, labels).item()
            correct += (outputs.argmax(1) == labels).sum().item()
    return loss / len(testloader), correct / len(testloader.dataset)
