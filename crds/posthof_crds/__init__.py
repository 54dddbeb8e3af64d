"""The contract: manifests, what they mean, and the compiled form the engine runs.

Here live the models of the custom resources (one file per kind), the compiler `manifests -> EngineConfig`
and EngineConfig itself. Nothing here opens a socket, knows a message or imports the engine.
`posthof_crds.engine` is what workers load: it must stay importable without pydantic and yaml.
"""
