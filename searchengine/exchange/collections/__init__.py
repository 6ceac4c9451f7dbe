"""Published collections of pictures: downloaded, checked, and unpacked into folders to index."""
