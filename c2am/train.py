"""`python -m c2am.train`: the pipeline, or some stages of it.

Exit codes: 0 done; 1 the training failed; 2 bad input; 130 interrupted from the keyboard;
143 or 138 ended by SIGTERM or SIGUSR1 with a checkpoint written; 124 another rank did not come.
The same command continues.
"""

import sys
from collections.abc import Sequence

from c2am.parsing import dump_config, parse
from c2am.progress import console
from c2am.trainer import TrainingError


def main(argv: Sequence[str] | None = None, prog: str = "python -m c2am.train") -> int:
    """Run the pipeline as the command line says; returns the exit code.

    Args:
        argv: the command line without the program's name, by default that of the process.
        prog: the program's name in messages.

    Raises:
        SystemExit: after `--help`, and after SIGTERM or SIGUSR1.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        command = parse(words, prog)
        if command.print_config:
            print(dump_config(command.config), end="")
            return 0
        from c2am import pipeline  # after the options: it imports every library that there is

        pipeline.run(
            command.config,
            stages=command.stages,
            start=command.start,
            force=command.force,
            profile=command.profile,
        )
    except KeyboardInterrupt:
        return _fail("interrupted; the same command continues", 130)
    except (ValueError, OSError, TrainingError) as error:
        if "--debug" in words:
            raise
        return _fail(f"error: {error}", 1 if isinstance(error, TrainingError) else 2)
    return 0


def _fail(message: str, code: int) -> int:
    console.print(message, style="bold red", highlight=False, markup=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
