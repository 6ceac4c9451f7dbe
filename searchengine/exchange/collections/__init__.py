"""Published collections of pictures: fetched from their publishers, checked, and unpacked into folders to index."""

from searchengine.exchange.collections.asking import DownloadError
from searchengine.exchange.collections.catalogue import DATASETS, Dataset, Downloaded, download_dataset
from searchengine.exchange.collections.open_images import download_open_images

__all__ = [
    "DATASETS",
    "Dataset",
    "DownloadError",
    "Downloaded",
    "download_dataset",
    "download_open_images",
]
