"""Published collections of pictures: fetched from their publishers, checked, and unpacked into folders to index."""

from searchengine.datasets.catalogue import DATASETS, Dataset, Downloaded, download_dataset
from searchengine.datasets.download import DownloadError, Progress, Quiet

__all__ = ["DATASETS", "Dataset", "DownloadError", "Downloaded", "Progress", "Quiet", "download_dataset"]
