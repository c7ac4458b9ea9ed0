"""dbt: `dbt debug` with one of the adapters `postgres` and `risingwave`."""

import os
import pathlib
import subprocess
import sys
import tempfile

HOST, PORT, ADAPTER = sys.argv[1:4]

PROJECT = """
name: weir
version: "1.0"
config-version: 2
profile: weir
"""
PROFILE = f"""
weir:
  target: dev
  outputs:
    dev:
      type: {ADAPTER}
      host: {HOST}
      port: {PORT}
      user: root
      password: ""
      dbname: dev
      schema: public
      threads: 1
"""

with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "dbt_project.yml").write_text(PROJECT)
    pathlib.Path(folder, "profiles.yml").write_text(PROFILE)
    dbt = pathlib.Path(sys.executable).with_name("dbt")
    environment = os.environ | {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "HOME": folder}
    found = subprocess.run(
        [dbt, "--no-use-colors", "debug", "--profiles-dir", folder, "--project-dir", folder],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0 and "Connection test: [OK connection ok]" in found.stdout, found.stdout + found.stderr
print("ok")
