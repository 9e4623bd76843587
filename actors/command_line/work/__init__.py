"""The words of ``assay job submit SERVICE``: one function per service, which makes the record of its work of them."""
