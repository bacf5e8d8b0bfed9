"""The command line, called in this process as a user calls it."""

from typer.testing import CliRunner

from scripts.dse import app


def dse(*arguments: object, exit_code: int = 0) -> str:
    """What a command prints; where it is to fail, what it says on standard error as well."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == exit_code, done.output
    return done.output if exit_code else done.stdout
