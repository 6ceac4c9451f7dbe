"""Published collections of pictures: downloaded, checked, and unpacked into folders to index."""

from searchengine.download import Client, DownloadError
from searchengine.exchange.collections.catalogue import (
    DATASETS,
    Dataset,
    Downloaded,
    DownloadOptions,
    download_dataset,
)
from searchengine.exchange.collections.open_images import Selection, download_open_images

__all__ = [
    "DATASETS",
    "Client",
    "Dataset",
    "DownloadError",
    "DownloadOptions",
    "Downloaded",
    "Selection",
    "download_dataset",
    "download_open_images",
]
