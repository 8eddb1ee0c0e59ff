"""Wire formats as files, so that a change of format is a diff somebody reads."""
