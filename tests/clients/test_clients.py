"""Client libraries, unchanged but for an address: what they answer is what the models say."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from model.bundle import Student, Teacher
from model.encoder import shortened
from model.similarity import score_pairs

pytestmark = pytest.mark.filterwarnings("ignore")  # of theirs

TEXTS = ["stone", "silent", "banana"]
KEY = "any"


def close(received: object, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.array(received, np.float32), expected, atol=1e-6)


def scores(model: Student | Teacher, query: str = "listen", texts: Sequence[str] = TEXTS) -> Mapping[int, object]:
    """What the model says of each text's row."""
    pairs = [(query, text) for text in texts]
    if isinstance(model, Teacher):
        logits = model.scorer.score(pairs).logits
    else:
        logits = score_pairs(model.encoder, model.head, pairs).logits
    return pytest.approx(dict(enumerate(model.score(logits).tolist())))


class TestOpenAI:
    @pytest.fixture
    def client(self, url: str):
        openai = pytest.importorskip("openai")
        return openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)

    def test_embeddings_in_base64_as_it_asks_by_itself(self, client, judge: Student) -> None:
        answer = client.embeddings.create(model="text-embedding-3-small", input=TEXTS)
        close([row.embedding for row in answer.data], judge.encoder.encode(TEXTS))
        assert answer.model == "tiny-student"
        assert answer.usage.total_tokens == sum(2 + len(text) for text in TEXTS)
        close(client.embeddings.create(model="default", input="a").data[0].embedding, judge.encoder.encode(["a"])[0])

    def test_numbers_and_dimensions(self, client, judge: Student) -> None:
        answer = client.embeddings.create(model="default", input="stone", encoding_format="float", dimensions=8)
        close(answer.data[0].embedding, shortened(judge.encoder.encode(["stone"]), 8)[0])

    def test_models(self, client) -> None:
        assert [model.id for model in client.models.list()] == ["tiny-student", "tiny-teacher"]
        assert client.models.retrieve("rerank-v3.5").id == "tiny-teacher"

    def test_errors_are_its_own_and_say_why(self, client) -> None:
        import openai

        with pytest.raises(openai.NotFoundError, match="this service has: tiny-student") as unknown:
            client.embeddings.create(model="gpt", input="a")
        assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.UnprocessableEntityError, match="this model gives 8, 16"):
            client.embeddings.create(model="default", input="a", dimensions=7)
        with pytest.raises(openai.UnprocessableEntityError, match="token ids were sent"):
            client.embeddings.create(model="default", input=[1, 2, 3])
        with pytest.raises(openai.APIStatusError, match="DSE_MAX_BATCH") as large:
            client.embeddings.create(model="default", input=["a"] * 1025)
        assert large.value.status_code == 413

    def test_several_at_once(self, url: str, judge: Student) -> None:
        import asyncio

        openai = pytest.importorskip("openai")

        async def ask() -> list:
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
                asked = [client.embeddings.create(model="default", input=text) for text in TEXTS * 8]
                return [answer.data[0].embedding for answer in await asyncio.gather(*asked)]

        close(asyncio.run(ask()), judge.encoder.encode(TEXTS * 8))


class TestCohere:
    @pytest.fixture
    def cohere(self):
        return pytest.importorskip("cohere")

    def test_version_2(self, cohere, url: str, judge: Student) -> None:
        answer = cohere.ClientV2(api_key=KEY, base_url=url).rerank(model="default", query="listen", documents=TEXTS)
        assert {row.index: row.relevance_score for row in answer.results} == scores(judge)
        assert answer.meta.billed_units.search_units == 1
        assert answer.id

    def test_version_1_and_the_teacher(self, cohere, url: str, teacher: Teacher) -> None:
        client = cohere.Client(api_key=KEY, base_url=url)
        answer = client.rerank(model="rerank-v3.5", query="listen", documents=TEXTS, top_n=3, return_documents=True)
        assert {row.index: row.relevance_score for row in answer.results} == scores(teacher)
        assert [row.document.text for row in answer.results] == [TEXTS[row.index] for row in answer.results]
        objects = client.rerank(query="listen", documents=[{"text": text} for text in TEXTS], top_n=1)
        assert len(objects.results) == 1

    def test_errors_are_its_own_and_say_why(self, cohere, url: str) -> None:
        client = cohere.ClientV2(api_key=KEY, base_url=url)
        with pytest.raises(cohere.NotFoundError) as unknown:
            client.rerank(model="rerank-v9", query="a", documents=["b"])
        assert "this service has: tiny-student" in unknown.value.body["message"]
        with pytest.raises(cohere.UnprocessableEntityError) as invalid:
            client.rerank(model="default", query="a", documents=["b", ""])
        assert invalid.value.body == {"message": "documents.1: the text is empty"}


class TestHuggingFace:
    @pytest.fixture
    def client(self, url: str):
        return pytest.importorskip("huggingface_hub").InferenceClient(model=url)

    def test_feature_extraction(self, client, judge: Student) -> None:
        close(client.feature_extraction("listen"), judge.encoder.encode(["listen"]))
        close(client.feature_extraction(TEXTS, truncate=True, normalize=True), judge.encoder.encode(TEXTS))

    def test_sentence_similarity(self, client, judge: Student) -> None:
        expected = judge.encoder.encode(TEXTS) @ judge.encoder.encode(["listen"])[0]
        received = client.sentence_similarity("listen", other_sentences=TEXTS)
        np.testing.assert_allclose(received, expected, atol=1e-5)

    def test_its_error_says_why(self, client) -> None:
        from huggingface_hub.errors import HfHubHTTPError

        with pytest.raises(HfHubHTTPError, match="this model gives 8, 16"):
            client.feature_extraction("listen", dimensions=7)


class TestLangChain:
    def test_openai_embeddings(self, url: str, judge: Student) -> None:
        langchain = pytest.importorskip("langchain_openai")
        client = langchain.OpenAIEmbeddings(
            model="default", base_url=f"{url}/v1", api_key=KEY, check_embedding_ctx_length=False
        )
        close(client.embed_documents(TEXTS), judge.encoder.encode(TEXTS))
        close(client.embed_query("listen"), judge.encoder.encode(["listen"])[0])

    def test_cohere_rerank(self, url: str, judge: Student) -> None:
        langchain = pytest.importorskip("langchain_cohere")
        client = langchain.CohereRerank(model="default", base_url=url, cohere_api_key=KEY, top_n=3)
        ranked = client.rerank(TEXTS, "listen")
        assert {row["index"]: row["relevance_score"] for row in ranked} == scores(judge)


class TestLlamaIndex:
    @pytest.fixture
    def nodes(self) -> list:
        schema = pytest.importorskip("llama_index.core.schema")
        return [schema.NodeWithScore(node=schema.TextNode(text=text)) for text in TEXTS]

    def check(self, ranked: Sequence, model: Student | Teacher) -> None:
        assert {TEXTS.index(row.node.text): row.score for row in ranked} == scores(model)

    def test_tei_embeddings(self, url: str, judge: Student) -> None:
        tei = pytest.importorskip("llama_index.embeddings.text_embeddings_inference")
        client = tei.TextEmbeddingsInference(model_name="default", base_url=url)
        close(client.get_text_embedding_batch(TEXTS), judge.encoder.encode(TEXTS))

    def test_openai_embeddings(self, url: str, judge: Student) -> None:
        like = pytest.importorskip("llama_index.embeddings.openai_like")
        client = like.OpenAILikeEmbedding(model_name="default", api_base=f"{url}/v1", api_key=KEY)
        close(client.get_text_embedding_batch(TEXTS), judge.encoder.encode(TEXTS))

    def test_tei_rerank(self, url: str, judge: Student, nodes: list) -> None:
        tei = pytest.importorskip("llama_index.postprocessor.tei_rerank")
        client = tei.TextEmbeddingInference(base_url=url, top_n=3)
        self.check(client.postprocess_nodes(nodes, query_str="listen"), judge)

    def test_cohere_rerank(self, url: str, teacher: Teacher, nodes: list) -> None:
        cohere = pytest.importorskip("llama_index.postprocessor.cohere_rerank")
        client = cohere.CohereRerank(model="rerank-v3.5", base_url=url, api_key=KEY, top_n=3)
        self.check(client.postprocess_nodes(nodes, query_str="listen"), teacher)

    def test_jina_rerank(self, url: str, judge: Student, nodes: list) -> None:
        jina = pytest.importorskip("llama_index.postprocessor.jinaai_rerank")
        client = jina.JinaRerank(model="default", base_url=f"{url}/v1", api_key=KEY, top_n=3)
        self.check(client.postprocess_nodes(nodes, query_str="listen"), judge)


class TestHaystack:
    @pytest.fixture
    def documents(self) -> list:
        haystack = pytest.importorskip("haystack")
        return [haystack.Document(content=text) for text in TEXTS]

    def test_openai_embedders(self, url: str, judge: Student, documents: list) -> None:
        from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
        from haystack.utils import Secret

        to = {"api_base_url": f"{url}/v1", "api_key": Secret.from_token(KEY), "model": "default"}
        embedded = OpenAIDocumentEmbedder(**to, progress_bar=False).run(documents)["documents"]
        close([document.embedding for document in embedded], judge.encoder.encode(TEXTS))
        close(OpenAITextEmbedder(**to).run("listen")["embedding"], judge.encoder.encode(["listen"])[0])

    def test_tei_embedder(self, url: str, judge: Student) -> None:
        embedders = pytest.importorskip("haystack_integrations.components.embedders.huggingface_api")
        client = embedders.HuggingFaceAPITextEmbedder(
            api_type="text_embeddings_inference", api_params={"url": url}, token=None
        )
        close(client.run("listen")["embedding"], judge.encoder.encode(["listen"])[0])

    @pytest.mark.parametrize("direction", [None, "Right"])
    def test_tei_ranker(self, url: str, judge: Student, documents: list, direction: str | None) -> None:
        rankers = pytest.importorskip("haystack_integrations.components.rankers.huggingface_api")
        side = None if direction is None else rankers.TruncationDirection(direction)
        client = rankers.HuggingFaceTEIRanker(url=url, top_k=3, token=None)
        ranked = client.run(query="listen", documents=documents, truncation_direction=side)["documents"]
        assert {TEXTS.index(document.content): document.score for document in ranked} == scores(judge)


class TestRerankers:
    @pytest.mark.parametrize(
        ("provider", "path"),
        [("text-embeddings-inference", "/rerank"), ("jina", "/v1/rerank"), ("cohere", "/v1/rerank")],
    )
    def test_rank(self, url: str, teacher: Teacher, provider: str, path: str) -> None:
        rankers = pytest.importorskip("rerankers.models.api_rankers")
        client = rankers.APIRanker("teacher", api_key=KEY, api_provider=provider, url=f"{url}{path}")
        ranked = client.rank("listen", TEXTS)
        assert {TEXTS.index(row.document.text): row.score for row in ranked.results} == scores(teacher)
