#!/usr/bin/env bash
# curl, as a shell user calls an OpenAI-compatible server.
set -u

embedding_model=${EMBEDDING_MODEL:-$MODEL}
expected_code=${EXPECT_ERROR_CODE:-}
prompt='Say hello to the acceptance run.'
chat="\"model\": \"$MODEL\", \"max_tokens\": 24, \"messages\": [{\"role\": \"user\", \"content\": \"$prompt\"}]"
completion="\"model\": \"$MODEL\", \"max_tokens\": 24, \"prompt\": \"$prompt\""
headers=$(mktemp)
trap 'rm -f "$headers"' EXIT

get() { curl -sS -m 60 -f -H "Authorization: Bearer $OPENAI_API_KEY" "$OPENAI_BASE_URL$1"; }

post() {
  curl -sS -N -m 60 -f -D "$headers" -H "Authorization: Bearer $OPENAI_API_KEY" \
    -H 'Content-Type: application/json' -d "{$2}" "$OPENAI_BASE_URL$1"
}

# Every line is an event, there are several with text, and the last one is the marker: `is_stream TEXT-KEY`.
is_stream() {
  local body
  body=$(cat)
  grep -qi '^content-type: *text/event-stream' "$headers" &&
    [ "$(grep -cE "^data: .*\"$1\": ?\"[^\"]+\"" <<<"$body")" -gt 1 ] &&
    grep -qE '"finish_reason": ?"(stop|length)"' <<<"$body" &&
    [ "$(grep -v '^$' <<<"$body" | tail -n 1)" = 'data: [DONE]' ]
}

models() { get /models | grep -qF "\"$MODEL\""; }
chat() { post /chat/completions "$chat" | grep -qE '"content": ?"[^"]+"'; }
chat_stream() { post /chat/completions "$chat, \"stream\": true" | is_stream content; }
completion() { post /completions "$completion" | grep -qE '"text": ?"[^"]+"'; }
completion_stream() { post /completions "$completion, \"stream\": true" | is_stream text; }
embedding() {
  post /embeddings "\"model\": \"$embedding_model\", \"input\": \"$prompt\"" |
    grep -qE '"embedding": ?\[ ?-?[0-9]'
}
wrong_key() {
  local answer
  answer=$(curl -sS -m 60 -w '\n%{http_code}' -H 'Authorization: Bearer sk-acceptance-wrong-key' "$OPENAI_BASE_URL/models")
  [ "${answer##*$'\n'}" = 401 ] || return 1
  [ -z "$expected_code" ] || grep -qE "\"code\": ?\"$expected_code\"" <<<"$answer"
}

set -o pipefail
status=0
for check in models chat chat_stream completion completion_stream embedding wrong_key; do
  if [[ ",${SKIP:-}," == *",$check,"* ]]; then
    echo "skip $check"
  elif "$check"; then
    echo "ok $check"
  else
    echo "FAIL $check: see the curl message above, if any"
    status=1
  fi
done
exit $status
