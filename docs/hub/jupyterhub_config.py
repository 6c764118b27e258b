"""The hub. docs/teaching.md says how it is started."""

c = get_config()  # noqa: F821

c.JupyterHub.bind_url = "http://127.0.0.1:8000"  # what serves HTTPS to the class passes everything on to here
c.Authenticator.allow_all = True  # who has an account and a password on this machine
c.Authenticator.blocked_users = {"root"}
c.Spawner.default_url = "/lab"
