"""Published collections of pictures: fetched from their publishers, checked, and unpacked into folders to index."""

from searchengine.datasets.asking import DownloadError
from searchengine.datasets.catalogue import DATASETS, Dataset, Downloaded, download_dataset
from searchengine.datasets.download import Progress, Quiet
from searchengine.datasets.open_images import download_open_images

__all__ = [
    "DATASETS",
    "Dataset",
    "DownloadError",
    "Downloaded",
    "Progress",
    "Quiet",
    "download_dataset",
    "download_open_images",
]
