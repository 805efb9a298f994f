"""Lists the models that a caller may use: chat and embedding models, the reranker, agents, and a rag/<collection> each."""

from __future__ import annotations

from . import schemas
from .access.caller import Caller
from .access.decision import Asks
from .access.register import Register
from .answers import rag_model
from .errors import NotFound
from .inference.cached_embedder import CachedEmbedder
from .inference.chat import ChatModel
from .knowledge.collections.collections import Collections
from .plugins import AGENT, AGENTS


class ModelList:
    def __init__(
        self,
        chat: ChatModel,
        embedder: CachedEmbedder,
        reranker: str | None,
        register: Register,
        collections: Collections,
    ) -> None:
        """`reranker` is the configured reranker's name, if there is one."""
        self._chat = chat
        self._embedder = embedder
        self._reranker = reranker
        self._register = register
        self._collections = collections

    async def of(self, caller: Caller) -> list[schemas.Model]:
        found: list[schemas.Model] = []
        if "chat" in caller.can:
            found += await self._chat_models()
            found.append(schemas.Model(id=self._embedder.name, type="embedding"))
            if caller.models.all or caller.models.fit(await self.default("chat")):
                found += [schemas.Model(id=f"{AGENT}{name}", type="agent") for name in sorted(AGENTS)]
        found = [model for model in found if model.type == "agent" or caller.models.fit(model.id)]
        if "read" in caller.can:
            await self._register.fresh()
            names = [name for name in self._collections.names() if self._register.visible(name, caller)]
            found += [
                schemas.Model(id=f"{rag_model.PREFIX}{name}", type="rag")
                for name in sorted(name.shown_to(caller) for name in names)
            ]
        return found

    async def one(self, caller: Caller, name: str) -> schemas.Model:
        """Return one of the caller's models by its name. Raises NotFound."""
        for model in await self.of(caller):
            if model.id == name:
                return model
        raise NotFound(f"no model {name!r}: see the list of models", details={"model": name})

    async def default(self, kind: Asks) -> str:
        """Return the default model of a kind; empty if it is not known."""
        if kind == "embedding":
            return self._embedder.name
        if kind == "rerank":
            return self._reranker or ""
        return self._chat.name or next(iter(await self._chat.models()), "")

    async def _chat_models(self) -> list[schemas.Model]:
        names = await self._chat.models()
        named = self._chat.name if self._chat.name in names else next(iter(names), None)
        context = (await self._chat.window()).context if names else None
        return [
            schemas.Model(
                id=name,
                type="chat",
                context_window=context if name == named else None,
                tools=self._chat.abstracts,
            )
            for name in names
        ]
