"""One program for every step: ``dse --help``."""

import sys

import typer

from scripts import (
    benchmark_commands,
    data_commands,
    evaluate_command,
    index_commands,
    serve,
    study_commands,
    task_commands,
    training_commands,
    use_commands,
)
from scripts.console import REFUSALS, say_no

app = typer.Typer(
    name="dse",
    help="Sentence-pair retrieval: train, export, index, search and serve distilled sentence encoders.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.add_typer(index_commands.app, name="index")
app.command("search")(use_commands.search)
app.command("score")(use_commands.score)
app.command("encode")(use_commands.encode)
app.add_typer(training_commands.teacher, name="teacher")
app.command("silver")(training_commands.silver)
app.command("distill")(training_commands.distill)
app.command("export")(training_commands.export)
app.command("evaluate")(evaluate_command.evaluate)
app.add_typer(task_commands.app, name="tasks")
app.add_typer(study_commands.app, name="study")
app.add_typer(data_commands.app, name="data")
app.add_typer(benchmark_commands.app, name="benchmark")


def main() -> None:
    """Run a command; what the caller can mend is one line on standard error and exit code 2."""
    try:
        app()
    except REFUSALS as error:
        say_no(error)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
