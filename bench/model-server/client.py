"""OpenAI's Python client against a server: client.py URL. Asserts what it gets and prints what was tried."""
import asyncio
import math
import sys

import openai

url = sys.argv[1]
client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
tried = []


def check(what, holds):
    assert holds, what
    tried.append(what)


check("models", [model.id for model in client.models.list()] == ["policy", "prm"])

whole = client.completions.create(model="policy", prompt="the policy", max_tokens=12, temperature=0, logprobs=3, n=1)
choice = whole.choices[0]
check("completion", choice.finish_reason in ("stop", "length") and whole.usage.completion_tokens <= 12)
check("logprobs", len(choice.logprobs.tokens) == whole.usage.completion_tokens and all(p <= 0 for p in choice.logprobs.token_logprobs))
check("top_logprobs", all(max(top.values()) >= p - 1e-6 for top, p in zip(choice.logprobs.top_logprobs, choice.logprobs.token_logprobs)))

parts = list(client.completions.create(model="policy", prompt="the policy", max_tokens=12, temperature=0, stream=True))
check("stream", "".join(part.choices[0].text for part in parts) == choice.text and len(parts) > 2)

many = client.completions.create(model="policy", prompt="the", max_tokens=8, n=5, seed=1)
again = client.completions.create(model="policy", prompt="the", max_tokens=8, n=5, seed=1)
texts = [one.text for one in many.choices]
check("n > 1", [one.index for one in many.choices] == [0, 1, 2, 3, 4] and len(set(texts)) > 1)
check("seed", texts == [one.text for one in again.choices])

stop = choice.text[5:7]
stopped = client.completions.create(model="policy", prompt="the policy", max_tokens=12, temperature=0, stop=stop).choices[0]
check("stop", stopped.text == choice.text[: choice.text.index(stop)] and stopped.finish_reason == "stop")

messages = [{"role": "system", "content": "You act."}, {"role": "user", "content": "What now?"}]
chat = client.chat.completions.create(model="policy", messages=messages, max_completion_tokens=10, temperature=0, logprobs=True, top_logprobs=2)
content = chat.choices[0].logprobs.content
check("chat", chat.choices[0].message.role == "assistant" and len(content) == chat.usage.completion_tokens)
check("chat logprobs", all(len(one.top_logprobs) == 2 and one.logprob <= 0 for one in content))
told = []
usage = None
for part in client.chat.completions.create(
    model="policy", messages=messages, max_completion_tokens=10, temperature=0, stream=True, stream_options={"include_usage": True}
):
    told += [one.delta.content or "" for one in part.choices]
    usage = part.usage or usage
check("chat stream", "".join(told) == chat.choices[0].message.content and usage == chat.usage)

commands = ["go to cabinet 1", "go to cabinet 12", "take mug 1"]
chosen = client.chat.completions.create(
    model="policy", messages=messages, logprobs=True, n=3, extra_body={"structured_outputs": {"choice": commands}}
)
check("choices", all(one.message.content in commands for one in chosen.choices))
check("choice probabilities", abs(sum(math.exp(p) for p in chosen.choices[0].choice_logprobs) - 1) < 1e-6)

scores = client.post("/score", body={"text_1": "the policy", "text_2": [" is kept", " is lost"]}, cast_to=object)
check("score", [one["index"] for one in scores["data"]] == [0, 1] and all(0 < one["score"] < 1 for one in scores["data"]))

for what, error, ask in [
    ("unknown model", openai.NotFoundError, {"model": "other"}),
    ("bad value", openai.BadRequestError, {"top_p": 2}),
    ("too long", openai.BadRequestError, {"max_tokens": 100000}),
]:
    try:
        client.completions.create(**{"model": "policy", "prompt": "a", **ask})
    except error as found:
        check(f"error: {what}", found.body["type"] == "invalid_request_error" and isinstance(found.body["message"], str))
    else:
        raise AssertionError(what)


async def concurrently():
    many = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    ask = dict(model="policy", prompt="the policy", max_tokens=12, temperature=0)
    return [one.choices[0].text for one in await asyncio.gather(*(many.completions.create(**ask) for _ in range(64)))]


check("64 at once", set(asyncio.run(concurrently())) == {choice.text})
print(f"openai {openai.__version__}: {', '.join(tried)}")
