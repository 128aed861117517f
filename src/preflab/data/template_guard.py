"""A chat template is a program from others' files: one that does not come to an end is refused before it is run.

It is tried out in a process of its own, which has so much time and memory and no more; nothing within a process could
stop a power of a power or a text of a terabyte.
"""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache

from preflab.core.records import UserError

_CPU_SECONDS = 3  # a template renders in milliseconds
_WALL_SECONDS = 60  # where other work has the processors
_MEMORY = 1 << 30  # bytes
_LONGEST = 1 << 24  # characters of what it makes of a short conversation
_NOT_TRIED = 3
_ENDLESS = "it does not come to an end"
_TROUBLES = {
    "memory": "it takes more than 1 GiB of memory",
    "length": "it renders millions of characters",
}

# As transformers sets Jinja up, as far as it matters to what a template takes.
_TRY_OUT = f"""
import sys
sys.path[:] = {{path!r}}
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, ({_CPU_SECONDS}, {_CPU_SECONDS}))
    resource.setrlimit(resource.RLIMIT_AS, ({_MEMORY}, {_MEMORY}))
except (ImportError, ValueError, OSError):
    pass
try:
    import json
    import re

    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError:
    sys.exit({_NOT_TRIED})

def refuse(message):
    raise TemplateError(message)

template = sys.stdin.buffer.read().decode("utf-8", "surrogatepass")
template = re.sub(r"{{{{%-?\\s*(end)?generation\\s*-?%}}}}", "", template)  # which marks text, and changes none
text = "Preflab tries this template out. " * 20
question = [{{{{"role": "user", "content": text}}}}]
answer = {{{{"role": "assistant", "content": text, "reasoning_content": text, "thinking": text}}}}
system = {{{{"role": "system", "content": text}}}}
chats = [question, [*question, answer], (question + [answer]) * 4, [system, *question]]
try:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals.update(raise_exception=refuse, strftime_now=lambda format: format)
    environment.filters["tojson"] = lambda value, **options: json.dumps(value)
    compiled = environment.from_string(template)
except MemoryError:
    sys.exit("memory")
except Exception:
    sys.exit(0)
for chat in chats:
    for last in (True, False):
        try:
            made = compiled.render(messages=chat, add_generation_prompt=last, bos_token="", eos_token="")
        except MemoryError:
            sys.exit("memory")
        except Exception:
            continue
        if len(made) > {_LONGEST}:
            sys.exit("length")
"""


def refuse_endless(template: str, name: str) -> None:
    """Raises UserError for a chat template that takes without end: time, memory, or room for what it renders.

    name: of the tokenizer that brings it.
    """
    if found := _trouble(template):
        raise UserError(
            f"{name}: its chat template cannot be used: tried out on a few short messages, {found}. Give another one "
            "with --chat-template, or mend the template"
        )


@lru_cache(maxsize=256)
def _trouble(template: str) -> str | None:
    command = [sys.executable, "-I", "-c", _TRY_OUT.format(path=sys.path)]
    try:
        tried = subprocess.run(
            command,
            input=template.encode("utf-8", "surrogatepass"),
            capture_output=True,
            timeout=_WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _ENDLESS
    except OSError:  # where no process can be started, there is nothing to try it out in
        return None
    if tried.returncode in (0, _NOT_TRIED):
        return None
    return _TROUBLES.get(tried.stderr.decode(errors="replace").strip(), _ENDLESS)
