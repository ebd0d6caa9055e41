"""Image bank re-sampling (IBR): the latest crop of every class, drawn uniformly over classes."""

import torch

from data.loader import upload


class ImageBank:
    """One slot a class, on the training device, as uint8 crops with their boxes and labels.

    num_classes  C
    crop         side of the crops in pixels
    allow_empty  True: slots never filled can be drawn too, as black images without label (release);
                 False: only filled ones (paper)
    """

    def __init__(self, num_classes: int, crop: int, device: torch.device, allow_empty: bool = False):
        self.images = torch.zeros(num_classes, 3, crop, crop, dtype=torch.uint8, device=device)
        self.boxes = torch.zeros(num_classes, 4, dtype=torch.int64, device=device)
        self.labels = torch.zeros(num_classes, num_classes, dtype=torch.uint8, device=device)
        self.filled = torch.zeros(num_classes, dtype=torch.bool)          # on the host: decides without a sync
        self.allow_empty = allow_empty

    def update(self, images: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> None:
        """Class c keeps the last image of the batch that shows it.

        images (N, 3, S, S) uint8 and boxes (N, 4) on the device, labels (N, C) 0/1 on the host
        """
        position = torch.arange(1, len(labels) + 1)[:, None]
        last = (labels.bool() * position).amax(0) - 1                     # (C,), -1: class not in the batch
        classes = (last >= 0).nonzero().flatten()
        slots, source = upload(torch.stack([classes, last[classes]]), images.device)
        self.images[slots] = images[source]
        self.boxes[slots] = boxes[source]
        self.labels[slots] = upload(labels.to(torch.uint8)[last[classes]], images.device)
        self.filled[classes] = True

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`count` independent draws with replacement -> images, boxes, labels on the device.

        generator  on the host; the draw depends on it and on which slots are filled, on nothing else
        Returns empty tensors when no slot may be drawn.
        """
        slots = torch.arange(len(self.filled)) if self.allow_empty else self.filled.nonzero().flatten()
        if len(slots) == 0:
            count = 0
        return self.take(slots[torch.randint(max(len(slots), 1), (count,), generator=generator)])

    def take(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images, boxes and labels of the given slots (n,) int64, which are on the host, on the device."""
        slots = upload(slots, self.images.device)
        return self.images[slots], self.boxes[slots], self.labels[slots]

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"images": self.images, "boxes": self.boxes, "labels": self.labels, "filled": self.filled}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        for name, tensor in state.items():
            getattr(self, name).copy_(tensor)
