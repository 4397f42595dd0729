"""Studies: the schema of a study file, the pipeline that plays one, published claims."""
