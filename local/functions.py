"""How each function's process is started: with what Lambda would give it, and with nothing else.

A function finds its own folder, its layers and what the managed image brings, as on Lambda: `site`
is off, so that a package which the template's layers do not bring is missing here, too. Its
environment is the template's, Lambda's own variables and its role's credentials; nothing of the
operator's shell.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from local import CannotRun
from local.embedded_aws import REGION, FunctionConfiguration, Stack
from local.sandbox import Program
from local.template import Function, NotUnderstood

# Lambda's Python image brings its runtime client and boto3 with everything these need.
IMAGE = (
    "awslambdaric",
    "runtime_client*.so",
    "snapshot_restore_py.py",
    "simplejson",
    "boto3",
    "botocore",
    "s3transfer",
    "jmespath",
    "urllib3",
    "dateutil",
    "six.py",
)
WRAPPER = "AWS_LAMBDA_EXEC_WRAPPER"


class Image:
    """The stand-in for Lambda's managed Python: an interpreter without `site`, and what the image
    brings.
    """

    def __init__(self, root: Path, directory: Path, interpreter: Path) -> None:
        self.packages = Path(sysconfig.get_paths()["purelib"])
        self.directory = directory / "image"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.layers = {
            "CoreLayer": root / "layers" / "core",
            "StreamLayer": root / "layers" / "stream",
            "DependenciesLayer": self.packages,
        }
        # Not in functions/: what lies there is what is deployed.
        self.bytecode = root / ".local" / "pycache"
        self.python = self.directory / "python"
        self.python.write_text(f'#!/bin/sh\nexec "{interpreter}" -S "$@"\n')
        self.python.chmod(0o755)
        for pattern in IMAGE:
            found = list(self.packages.glob(pattern))
            if not found:
                raise CannotRun(
                    f"{self.packages} lacks {pattern}: remove .venv and run `make run` again."
                )
            for path in found:
                link = self.directory / path.name
                link.unlink(missing_ok=True)
                link.symlink_to(path)


def program(
    function: Function,
    configuration: FunctionConfiguration,
    stack: Stack,
    image: Image,
    logs: Path,
    instead: Mapping[str, str],
) -> Program:
    """`instead` are variables that take the place of the template's."""
    layers = _layers(function, image)
    env = {
        **configuration.environment,
        **instead,
        **_lambda_environment(function, configuration),
        "AWS_ENDPOINT_URL": stack.endpoint,
        # boto3 is not to find the operator's own settings and credentials.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "LAMBDA_RUNTIME_DIR": str(image.directory),
        "PYTHONPATH": os.pathsep.join(map(str, [*layers, image.directory])),
        "PYTHONPYCACHEPREFIX": str(image.bytecode),
    }
    return Program(
        name=function.logical_id,
        arn=configuration.arn,
        argv=_command(function, configuration.environment, layers, image),
        env=env,
        cwd=function.code,
        log=logs / f"{function.logical_id}.log",
        timeout_s=configuration.timeout_s,
    )


def _layers(function: Function, image: Image) -> list[Path]:
    for layer in function.layers:
        if layer not in image.layers:
            raise NotUnderstood(f"{function.logical_id}: layer {layer}")
    return [image.layers[layer] for layer in function.layers]


def _command(
    function: Function, environment: Mapping[str, str], layers: list[Path], image: Image
) -> tuple[str, ...]:
    wrapper = environment.get(WRAPPER)
    stock = (str(image.python), "-m", "awslambdaric", function.handler)
    if wrapper is None:
        return stock
    for layer in layers:
        path = layer / wrapper.removeprefix("/opt/")
        if wrapper.startswith("/opt/") and os.access(path, os.X_OK):
            # As the managed image calls it: the wrapper, the interpreter, and the runtime that it
            # is to replace.
            return (
                str(path),
                str(image.python),
                str(image.directory / "awslambdaric" / "__main__.py"),
            )
    raise NotUnderstood(
        f"{function.logical_id}: {WRAPPER}: {wrapper!r} is no executable of its layers"
    )


def _lambda_environment(function: Function, configuration: FunctionConfiguration) -> dict[str, str]:
    """AWS: "Using Lambda environment variables", the defined ones."""
    return {
        "_HANDLER": function.handler,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(configuration.memory_mb),
        "AWS_LAMBDA_FUNCTION_NAME": configuration.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_FORMAT": configuration.log_format,
        "AWS_LAMBDA_LOG_GROUP_NAME": configuration.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": f"{configuration.name}[$LATEST]",
        "LAMBDA_TASK_ROOT": str(function.code),
        "LANG": "en_US.UTF-8",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "TZ": ":UTC",
    }
