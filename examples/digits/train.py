# SPDX-License-Identifier: Apache-2.0
"""Train a small residual and depthwise CNN on scikit-learn's handwritten digits and export it to ONNX.

Run it with `make digits`. It writes, beside itself, `digits.onnx`, `calib.npz`, `test.npz` and `labels.npz`.

The data set has 1797 grey pictures of 8 x 8 with values 0 to 16. Each pixel is drawn as a square of 4 x 4, so
that the network sees 32 x 32 and has enough work per picture for int8 arithmetic to show. The pictures are
split once, by a seeded permutation, into three sets that share none: 1147 to train, 200 to calibrate and
450 to test.

The network is exported as trained: BatchNormalization stays a node of its own and the input is scaled by a
node, as in many models found in the wild, so that the optimizer has its ordinary work to do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

CALIB, TEST = 200, 450
SIDE = 32


class ConvNormRelu(nn.Sequential):
    """Convolution, batch norm and ReLU; `groups=inputs` makes it depthwise."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class Residual(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNormRelu(channels, channels, 3)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The block on [N, channels, H, W], same shape out."""
        return functional.relu(x + self.norm(self.second(self.first(x))))


class DepthwiseResidual(nn.Module):
    """relu(x + norm(pointwise(relu(norm(depthwise(x))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = ConvNormRelu(channels, channels, 3, groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The block on [N, channels, H, W], same shape out."""
        return functional.relu(x + self.norm(self.pointwise(self.depthwise(x))))


class DigitNet(nn.Module):
    """Pictures [N, 1, 32, 32] with values 0 to 16 in, ten logits [N, 10] out; 22 million MACs a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNormRelu(1, 32, 3),
            ConvNormRelu(32, 32, 3, stride=2, groups=32),
            ConvNormRelu(32, 64, 1),
            Residual(64),
            ConvNormRelu(64, 64, 3, stride=2, groups=64),
            ConvNormRelu(64, 96, 1),
            DepthwiseResidual(96),
            DepthwiseResidual(96),
            ConvNormRelu(96, 128, 1),
        )
        self.dropout = nn.Dropout(0.1)
        self.classify = nn.Linear(128, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of each picture."""
        features = self.body(image / 16.0).mean(dim=(2, 3))
        return self.classify(self.dropout(features))


def pictures(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All pictures [1797, 1, 32, 32] and their labels [1797], in seeded random order."""
    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    drawn = np.kron(data.images, np.ones((SIDE // 8, SIDE // 8))).astype(np.float32)
    return drawn[order][:, None], data.target[order].astype(np.int64)


def shifted(images: Tensor, random: torch.Generator) -> Tensor:
    """The batch, moved by up to 3 pixels each way; what comes in at the border is paper (0)."""
    dx, dy = (int(v) for v in torch.randint(-3, 4, (2,), generator=random))
    padded = functional.pad(images, (3, 3, 3, 3))
    return padded[:, :, 3 + dy : 3 + dy + SIDE, 3 + dx : 3 + dx + SIDE]


def train(images: Tensor, labels: Tensor, epochs: int, seed: int) -> DigitNet:
    """Train with AdamW, one-cycle learning rate and label smoothing; the result is in evaluation mode."""
    random = torch.Generator().manual_seed(seed)
    net = DigitNet()
    size = 64
    batches = len(images) // size
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.006, total_steps=epochs * batches)
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(images), generator=random)[: batches * size].split(size):
            logits = net(shifted(images[chosen], random))
            loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1:2d}/{epochs}  loss {total / batches:.4f}")
    return net.eval()


def export(net: DigitNet, path: Path) -> None:
    """Write the network as trained: opset 17, batch size N symbolic, nothing folded."""
    torch.onnx.export(
        net,
        (torch.zeros(2, 1, SIDE, SIDE),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
        opset_version=17,
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        dynamo=False,
    )


def main() -> None:
    """Train, export, write the splits and print the test accuracy."""
    parser = argparse.ArgumentParser(description="Train and export the digits model.")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(mode=True)
    images, labels = pictures(options.seed)
    (calib, test, rest) = np.split(np.arange(len(labels)), [CALIB, CALIB + TEST])
    net = train(torch.from_numpy(images[rest]), torch.from_numpy(labels[rest]), options.epochs, options.seed)
    with torch.no_grad():
        guess = net(torch.from_numpy(images[test])).argmax(1).numpy()
    print(f"test accuracy {(guess == labels[test]).mean():.4f} on {len(test)} pictures")

    options.out.mkdir(parents=True, exist_ok=True)
    export(net, options.out / "digits.onnx")
    # An array's name in a data file is the input it feeds, so the labels have a file of their own.
    np.savez_compressed(options.out / "calib.npz", image=images[calib])
    np.savez_compressed(options.out / "test.npz", image=images[test])
    np.savez_compressed(options.out / "labels.npz", calib=labels[calib], test=labels[test])


if __name__ == "__main__":
    main()
