"""`python -m frontend`: settings, then the parts in order, then serve until told to stop.

Refuses to do anything at import, and to start without its tokenizer or its engine: one line says what is missing.
"""

import asyncio
import gc
import logging
import os
import sys
import time

import uvicorn
import uvloop

from .admission import Admission
from .app import create_app
from .engine_dir import read_engine_dir
from .errors import StartupError
from .layers import with_layers
from .request_ids import log_handler
from .served_model import ServedModel, served_names
from .service import Service
from .settings import Settings
from .template import ChatTemplate
from .tokenizer import Tokenizer
from .triton import open_triton


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; running answers get `shutdown_timeout_s` to finish. Raises StartupError."""
    files = read_engine_dir(settings.engine_dir)
    tokenizer = Tokenizer(files.tokenizer_json)
    template = ChatTemplate(files.chat_template, files.special_tokens)
    end_tokens = tokenizer.end_tokens(files.special_tokens, files.eos_token_ids)
    async with open_triton(settings.triton_url, settings.model, startup_timeout_s=settings.startup_timeout_s) as triton:
        service = Service(
            model_names=served_names(settings.served_model_name, files.checkpoint_path),
            served_model=ServedModel(
                template=template,
                tokenizer=tokenizer,
                end_tokens=end_tokens,
                engine=triton.engine,
                vocab_size=files.vocab_size,
            ),
            triton=triton,
            admission=Admission(triton.engine.max_batch_size, settings.max_queue_length),
            max_body_bytes=settings.max_body_bytes,
            request_timeout_s=settings.request_timeout_s,
            reject_unknown_parameters=settings.reject_unknown_parameters,
            started=int(time.time()),
        )
        server = Server(_uvicorn_config(service, settings))
        gc.collect()
        gc.freeze()  # what lives now lives for good: the collector need not look at it again
        await server.serve()


class Server(uvicorn.Server):
    """uvicorn looks ten times a second whether it should end, which costs an idle process more than all else."""

    async def main_loop(self) -> None:
        """Look once a second; `on_tick` renews the Date header at every tenth count."""
        while not await self.on_tick(0):
            await asyncio.sleep(1)


def _uvicorn_config(service: Service, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        with_layers(create_app(service)),
        host=settings.host,
        port=settings.port,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
    )


def main() -> int:
    """The exit code: 1 with one line on stderr if the start failed. A signal ends the process as that signal does."""
    settings = Settings.from_args(sys.argv[1:], os.environ)
    logging.basicConfig(level=logging.INFO, handlers=[log_handler()])
    try:
        uvloop.run(serve(settings))
    except StartupError as exc:
        print(f"frontend: {exc}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
