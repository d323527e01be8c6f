"""Where bytes lie: a directory of ours, or an object store, behind the port in `observing/byte_store.py`."""
