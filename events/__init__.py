"""The signed sentence: keys, canonical bytes, ids, signatures, subjects, Merkle trees, and the errors."""
