"""The `openai` package against a running server: openai_client.py BASE_URL. Exits 1 on a mismatch.

What is checked is what users of the package rely on: chat, completions, streaming, usage,
log-probabilities, several choices, stop strings, seeds, models, and its exceptions.
"""

import json
import sys

import openai

base = sys.argv[1].rstrip("/")
client = openai.OpenAI(base_url=base + "/v1", api_key="none", max_retries=0, timeout=120)
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "Say hello."}]
checks = 0


def check(what, holds):
    global checks
    checks += 1
    if not holds:
        sys.exit(f"FAILED: {what}")


def raised(kind, call):
    try:
        call()
    except kind as error:
        return error
    except Exception as error:  # another kind is a failure with its name
        sys.exit(f"FAILED: expected {kind.__name__}, got {type(error).__name__}: {error}")
    sys.exit(f"FAILED: expected {kind.__name__}, got an answer")


def models():
    check("the model by its name", client.models.retrieve(model).id == model)
    root = client.models.list().data[0].root
    answer = client.completions.create(model=root, prompt="a", max_tokens=1)
    check("its path is a name, too", answer.usage.completion_tokens == 1)
    raised(openai.NotFoundError, lambda: client.models.retrieve("no-such-model"))
    raised(openai.NotFoundError, lambda: client.completions.create(model="nope", prompt="a"))


def completions():
    ask = dict(model=model, prompt="Hello", max_tokens=8, temperature=0)
    whole = client.completions.create(**ask, logprobs=3)
    choice = whole.choices[0]
    check("object", whole.object == "text_completion")
    check("usage", whole.usage.completion_tokens == 8 and choice.finish_reason == "length")
    total = whole.usage.prompt_tokens + whole.usage.completion_tokens
    check("total", whole.usage.total_tokens == total)
    check("log-probabilities", len(choice.logprobs.token_logprobs) == 8)
    check("top", all(1 <= len(top) <= 3 for top in choice.logprobs.top_logprobs))
    check("negative", all(p <= 0 for p in choice.logprobs.token_logprobs))
    options = {"include_usage": True}
    chunks = list(client.completions.create(**ask, stream=True, stream_options=options))
    text = "".join(c.choices[0].text for c in chunks if c.choices)
    check("the stream is the whole", text == choice.text)
    usage = chunks[-1].usage
    check("usage at the end", usage.completion_tokens == 8 and not chunks[-1].choices)
    plain = list(client.completions.create(**ask, stream=True))
    check("no usage unasked", all(c.choices and c.usage is None for c in plain))
    ids = client.completions.create(model=model, prompt=[1, 2, 3], max_tokens=2)
    check("token ids", ids.usage.prompt_tokens == 3)
    many = client.completions.create(model=model, prompt=["a", "b"], max_tokens=2, n=2)
    check("prompts times n", [c.index for c in many.choices] == [0, 1, 2, 3])
    echoed = client.completions.create(model=model, prompt="Hello", max_tokens=1, echo=True)
    check("echo", echoed.choices[0].text.startswith("Hello"))


def seeds():
    def draw(seed):
        answer = client.completions.create(
            model=model, prompt="Once", max_tokens=12, temperature=1, seed=seed
        )
        return answer.choices[0].text

    check("a seed repeats", draw(7) == draw(7))
    check("seeds differ", len({draw(seed) for seed in range(4)}) > 1)


def chat():
    ask = dict(model=model, messages=messages, max_completion_tokens=10, temperature=0)
    whole = client.chat.completions.create(**ask, logprobs=True, top_logprobs=2)
    choice = whole.choices[0]
    check("role", choice.message.role == "assistant")
    tokens = whole.usage.completion_tokens
    check("log-probabilities", len(choice.logprobs.content) == tokens)
    check("top", all(len(t.top_logprobs) == 2 for t in choice.logprobs.content))
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options=options))
    check("role first", chunks[0].choices[0].delta.role == "assistant")
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    check("the stream is the whole", text == choice.message.content)
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    check("one reason, at the end", [r for r in reasons if r] == [choice.finish_reason])
    check("usage at the end", chunks[-1].usage.completion_tokens == tokens)
    parts = [{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}]
    same = client.chat.completions.create(**{**ask, "messages": parts})
    check("parts are the text", same.choices[0].message.content == choice.message.content)
    two = client.chat.completions.create(**{**ask, "temperature": 1}, n=2, seed=1)
    check("two choices", [c.index for c in two.choices] == [0, 1])
    extra = client.chat.completions.create(**ask, extra_body={"ignore_eos": True, "top_k": 1})
    check("SGLang's extras", extra.usage.completion_tokens == 10)


def stops():
    ask = dict(model=model, prompt="Hello", max_tokens=24, temperature=0)
    text = client.completions.create(**ask).choices[0].text
    if len(text) > 3:
        stop = text[2]
        cut = client.completions.create(**ask, stop=[stop]).choices[0]
        check("stop", cut.finish_reason == "stop" and cut.text == text.split(stop)[0])


def constrained():
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer"}},
        "required": ["age"],
        "additionalProperties": False,
    }
    named = {"name": "person", "schema": schema}
    answer = client.chat.completions.create(
        model=model,
        messages=messages,
        max_completion_tokens=64,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": named},
    ).choices[0]
    if answer.finish_reason == "stop":
        check("the schema holds", isinstance(json.loads(answer.message.content)["age"], int))
    else:
        check("the schema begins", answer.message.content.lstrip().startswith("{"))


def errors():
    def ask(**more):
        return client.completions.create(**{"model": model, "prompt": "a", **more})

    for bad in [{"max_tokens": 0}, {"temperature": -1}, {"top_p": 3}, {"n": 1000}]:
        error = raised(openai.BadRequestError, lambda: ask(**bad))
        check(f"{bad} has a message", list(bad)[0] in str(error.body))
    raised(openai.BadRequestError, lambda: ask(max_tokens=1 << 29))
    empty = dict(model=model, messages=[])
    error = raised(openai.BadRequestError, lambda: client.chat.completions.create(**empty))
    check("the field is named", error.param == "messages")


for part in [models, completions, seeds, chat, stops, constrained, errors]:
    part()
print(f"openai {openai.__version__}: {checks} checks passed against {model}")
