#!/usr/bin/env bash
# Makes what the fuzzers start from: small valid files of every kind, one folder for each target of
# targets.h, from the tests' fixtures and from what stands here; and a dictionary of the keys and
# values that the readers' sources name.
#
#   tests/fuzz/seeds.sh FOLDER
set -euo pipefail
out=$(realpath -m "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
fixtures=tests/fixtures

# seed TARGET NAME: standard input becomes a seed.
seed() {
  mkdir -p "$out/$1"
  cat > "$out/$1/$2"
}
# join FILE...: files as the parts of one input; - is a part left out.
join() {
  local file first=1
  for file in "$@"; do
    ((first)) || printf '\n===\n'
    first=0
    [[ $file == - ]] || cat "$file"
  done
}
# A number as one byte, or as eight, little end first.
byte() { printf '%b' "\\x$(printf %x "$1")"; }
eight() { local i; for ((i = 0; i < 64; i += 8)); do byte $(($1 >> i & 255)); done; }
# safetensors HEADER BYTES: a file with so many bytes of data.
safetensors() { eight "${#1}"; printf %s "$1"; head -c "$2" /dev/zero; }
# piece TEXT TYPE: a piece of a sentencepiece model, shorter than 100 bytes; its score is -2.
piece() {
  local n
  n=$(printf %s "$1" | wc -c)
  printf '\x0a'; byte $((n + 9)); printf '\x0a'; byte "$n"; printf %s "$1"
  printf '\x15\x00\x00\x00\xc0\x18'; byte "$2"
}

# --- weights, config.json, folders, adapters -----------------------------------------------------

f32='"dtype":"F32","shape"'
two='{"a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]},"b":{"dtype":"I64","shape":[],"data_offsets":[8,16]}}'
safetensors "$two" 16 | seed safetensors two
safetensors "{\"__metadata__\":{\"format\":\"pt\"},\"x\":{$f32:[3],\"data_offsets\":[0,12]}}" 12 |
  seed safetensors metadata
safetensors "{\"x\":{$f32:[0,4],\"data_offsets\":[0,0]}}" 0 | seed safetensors empty
head -c 4096 "$fixtures/models/llama-linear/model.safetensors" | seed safetensors cut

for config in "$fixtures"/models/*/config.json; do
  seed config "$(basename "$(dirname "$config")")" < "$config"
done

llama=$fixtures/models/llama
added='{"added_tokens":[{"id":0,"content":"<pad>"},{"id":3,"content":"[MASK]"}]}'
map='{"metadata":{},"weight_map":{"model.norm.weight":"llama.safetensors","x":"a.safetensors"}}'
join "$llama/config.json" - - "$llama/model.safetensors" | seed folder llama
join - - <(printf %s "${map/,\"x\":\"a.safetensors\"/}") - | seed folder index
join - - <(printf %s "$map") <(safetensors "$two" 16) | seed folder shards
join "$fixtures/models/bert/config.json" <(printf %s "$added") - \
  "$fixtures/models/bert/model.safetensors" | seed folder bert

a="\"decoder 0 q lora_A\":{$f32:[2,3],\"data_offsets\":[0,24]}"
b="\"decoder 0 q lora_B\":{$f32:[3,2],\"data_offsets\":[24,48]}"
printf %s '{"format":"graft-adapter-1","spec":"lora:r=2","more":{"model":"encoder","task":"topic",
  "labels":["a","b"],"language":false,"joined":false,"task_folder":"topic","max_tokens":64,
  "base_hash":"00","head":"linear","pool":"mean"}}' > "$out/adapter_config.json"
join "$out/adapter_config.json" <(safetensors "{$a,$b}" 48) | seed adapter whole
join "$out/adapter_config.json" - | seed adapter config
join - <(safetensors "{$a}" 24) | seed adapter half
meta='"__metadata__":{"kind":"graft-training-state-1","step":"3"}'
p="\"parameter decoder 0 q lora_A\":{$f32:[2,3],\"data_offsets\":[0,24]}"
q="\"parameter decoder 0 q lora_B\":{$f32:[3,2],\"data_offsets\":[24,48]}"
v="\"state decoder 0 q lora_A velocity\":{$f32:[2,3],\"data_offsets\":[48,72]}"
w="\"state decoder 0 q lora_B velocity\":{$f32:[3,2],\"data_offsets\":[72,96]}"
join "$out/adapter_config.json" <(safetensors "{$a,$b}" 48) \
  <(safetensors "{$meta,$p,$q,$v,$w}" 96) | seed adapter state
rm "$out/adapter_config.json"

# Fixtures that are called after the base they are for.
for family in bert gpt2 llama t5; do
  for folder in "$fixtures"/peft/*-"$family"; do
    join <(printf %s "$family") "$folder"/adapter_{config.json,model.safetensors} |
      seed peft "$(basename "$folder")"
  done
  for folder in "$fixtures"/adapterhub/*-"$family"; do
    join <(printf %s "$family") "$folder"/adapter{_config.json,.safetensors} |
      seed adapterhub "$(basename "$folder")"
  done
done

# --- tokenizers ----------------------------------------------------------------------------------

# tokenizer NAME MODEL [KEY:VALUE]...: a tokenizer.json and a text to read with it.
tokenizer() {
  local name=$1 model=$2 all='"version":"1.0"' more
  shift 2
  for more in "$@"; do all+=",$more"; done
  printf '{%s,"model":%s}\n===\na wolf, 12 wolves\n' "$all" "$model" | seed tokenizer "$name"
}
specials='"added_tokens":[{"id":0,"content":"[UNK]","special":true,"normalized":false,"lstrip":false,"rstrip":true,"single_word":false},{"id":9,"content":"[MASK]","special":true,"normalized":true,"lstrip":true,"rstrip":false,"single_word":true}]'
vocab='{"[UNK]":0,"a":1,"w":2,"o":3,"##l":4,"wo":5,",":6,"##f":7,"wolf":8}'
bert='{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true}'
around='{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"[UNK]","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],"special_tokens":{"[UNK]":{"id":"[UNK]","ids":[0],"tokens":["[UNK]"]}}}'
tokenizer wordpiece \
  '{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":'"$vocab"'}' \
  "$specials" "\"normalizer\":$bert" '"pre_tokenizer":{"type":"BertPreTokenizer"}' \
  "\"post_processor\":$around" '"decoder":{"type":"WordPiece","prefix":"##","cleanup":true}' \
  '"truncation":{"direction":"Right","max_length":8,"strategy":"LongestFirst","stride":0}' \
  '"padding":{"strategy":{"Fixed":8},"direction":"Right","pad_to_multiple_of":null,"pad_id":0,"pad_type_id":0,"pad_token":"[UNK]"}'
tokenizer bytes \
  '{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":"","end_of_word_suffix":"","fuse_unk":false,"byte_fallback":false,"ignore_merges":true,"vocab":{"a":0,"w":1,"o":2,"\u0120":3,"\u0120w":4,"\u0120wo":5},"merges":["\u0120 w",["\u0120w","o"]]}' \
  '"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"String":"x"},"behavior":"Isolated","invert":false},{"type":"Digits","individual_digits":true},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}]}' \
  '"normalizer":{"type":"NFC"}' '"post_processor":{"type":"ByteLevel","trim_offsets":false}' \
  '"decoder":{"type":"ByteLevel"}'
tokenizer unigram \
  '{"type":"Unigram","unk_id":0,"byte_fallback":true,"vocab":[["<unk>",0.0],["\u2581",-2.5],["a",-3],["\u2581wolf",-1.5],["<0x0A>",-9]]}' \
  '"normalizer":{"type":"Sequence","normalizers":[{"type":"Nmt"},{"type":"NFKC"},{"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "},{"type":"Replace","pattern":{"String":"x"},"content":"yy"},{"type":"Precompiled","precompiled_charsmap":"CAAAAAAAAAABAgMEYQBiAA=="},{"type":"Lowercase"},{"type":"StripAccents"},{"type":"Strip","strip_left":true,"strip_right":false},{"type":"Prepend","prepend":"z"}]}' \
  '"pre_tokenizer":{"type":"Metaspace","replacement":"\u2581","prepend_scheme":"always","split":true}' \
  '"decoder":{"type":"Metaspace","replacement":"\u2581","prepend_scheme":"first","split":true}'
tokenizer characters \
  '{"type":"BPE","unk_token":"<unk>","fuse_unk":true,"byte_fallback":true,"continuing_subword_prefix":"#","end_of_word_suffix":"</w>","vocab":{"<unk>":0,"w":1,"#o":2,"wo":3,"#l":4,"f</w>":5,"<0x41>":6},"merges":["w #o"]}' \
  '"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Whitespace"},{"type":"Punctuation","behavior":"MergedWithPrevious"},{"type":"WhitespaceSplit"}]}' \
  '"post_processor":{"type":"RobertaProcessing","sep":["<unk>",0],"cls":["w",1],"trim_offsets":true,"add_prefix_space":false}' \
  '"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"w"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0},{"type":"BPEDecoder","suffix":"</w>"}]}'
tokenizer words '{"type":"WordLevel","unk_token":"[UNK]","vocab":'"$vocab"'}' "$specials" \
  '"pre_tokenizer":{"type":"Split","pattern":{"String":" "},"behavior":"Removed","invert":false}'
join "$fixtures/tokenizer/kinds/chars.json" <(echo 'a wolf') | seed tokenizer chars
join "$fixtures/tokenizer/kinds/llama3.json" <(echo 'a wolf') | seed tokenizer llama3

# older NAME KIND CONFIG MERGES: with the vocabulary on standard input.
older() {
  { printf '%s\n===\n%s\n===\n%s\n===\n%s\n===\n%s\n===\n' "$2" "$3" "$5" "$6" "$4"; cat; } |
    seed older_tokenizer "$1"
}
token='{"content":"<m>","lstrip":true,"rstrip":false,"single_word":false,"normalized":false,"special":true}'
printf '%s\n' '[UNK]' '[CLS]' '[SEP]' '[PAD]' '[MASK]' a wolf '##s' |
  older bert vocab.txt '{"tokenizer_class":"BertTokenizer","do_lower_case":true,"tokenize_chinese_chars":true,"strip_accents":null}' '' '' ''
printf '{"<s>":0,"</s>":1,"<pad>":2,"<unk>":3,"<mask>":4,"a":5,"w":6,"o":7,"wo":8}' |
  older roberta vocab.json '{"tokenizer_class":"RobertaTokenizer","add_prefix_space":true}' \
    $'#version: 0.2\nw o\n' "{\"mask_token\":$token}" '{"<more>":9}'
printf '{"a":0,"w":1,"o":2,"wo":3,"<|endoftext|>":4}' |
  older gpt2 vocab.json "{\"tokenizer_class\":\"GPT2Tokenizer\",\"add_bos_token\":true,\"added_tokens_decoder\":{\"5\":$token},\"additional_special_tokens\":[\"<m>\"]}" $'w o\n' '' ''
printf '{"a":0,"<|endoftext|>":1}' | older qwen2 vocab.json '{"tokenizer_class":"Qwen2Tokenizer"}' '#version: 0.2' '' ''
mark=$'\xe2\x96\x81'
bpe=$'\x12\x05\x18\x02\x98\x02' # of the trainer: model_type is BPE; byte_fallback, which follows
{ piece '<unk>' 2; piece '<s>' 3; piece '</s>' 3; piece '<0x41>' 6; piece "$mark" 1; piece w 1; piece o 1
  piece "${mark}w" 1; piece "${mark}wo" 1; piece user 4; printf %s "$bpe"; byte 1; } |
  older llama tokenizer.model '{"tokenizer_class":"LlamaTokenizer","legacy":false,"add_bos_token":true,"add_eos_token":false}' '' '' ''
{ piece '<pad>' 3; piece '</s>' 3; piece '<unk>' 2; piece "$mark" 1; piece "${mark}wolf" 1; piece a 1
  # The normalizer's map: one unit of a trie, and a replacement.
  printf '\x1a\x0c\x12\x0a\x04\x00\x00\x00\x00\x01\x00\x00'; printf 'b\x00'; } |
  older t5 spiece.model '{"extra_ids":3}' '' '' ''
join <(printf tokenizer.model) - - - - "$fixtures/tokenizer/kinds/llama/tokenizer.model" |
  seed older_tokenizer pieces

# --- rows and tasks ------------------------------------------------------------------------------

printf 'ca,b\r\n1,"x, ""y""\nz"\r\n2,\r\n' | seed rows csv
printf 'ta\tb\n1\tx\n2\ty\n' | seed rows tsv
printf 'ngj04\t1\t\tA text.\ngj05\t0\t*\tText a.\n' | seed rows cola
printf 'l{"a":1,"b":"x"}\n{"b":"y\\u00e9","a":-2.5e3}\n\n{"a":true,"b":""}\n' | seed rows jsonl
printf 'j[{"a":1,"b":"x"},{"a":2,"b":"y"}]' | seed rows json
printf 'ename : Blue Spice || A place.\narea : north||Far.\n' | seed rows e2e
printf 'xone\n\n\xef\xbb\xbftwo\r\n' | seed rows text
{ printf z; printf 'a text, a text, a text' | gzip -n; } | seed rows gzip

rows=$(for ((i = 0; i < 30; ++i)); do echo "text $i,word,$([[ $((i % 3)) == 0 ]] && echo yes || echo no),$i.5"; done)
csv=$'a,b,label,score\n'$rows
join <(printf %s '{"format":"csv","train":"train","label":"label","b":"b","labels":["yes","no"],"metric":"matthews","rows":{"train":30}}') \
  <(echo "$csv") | seed task csv
join <(printf %s '{"format":"tsv","kind":"regression","train":"train","dev":"dev"}') \
  <(echo "$csv" | tr , '\t') <(echo "$csv" | tr , '\t') | seed task tsv
join <(printf %s '{"format":"e2e","train":"train"}') \
  <(for ((i = 0; i < 40; ++i)); do echo "name : $i||Text $i."; done) | seed task e2e
join <(printf %s '{"format":"alpaca","train":"train","dev":"dev","test":"dev"}') \
  <(printf %s '[{"instruction":"Do.","input":"","output":"Done."},{"instruction":"Go.","input":"x","output":"Gone."}]') \
  <(printf %s '[{"instruction":"Do.","input":"","output":"Done."}]') | seed task alpaca
join <(printf %s '{"format":"jsonl","kind":"language","train":"train","dev":"dev","test":"dev","prompt":"p","continuation":"c"}') \
  <(printf '{"p":"x","c":"y"}\n') <(printf '{"p":"x","c":"y"}\n') | seed task jsonl
# rte ROWS: as GLUE publishes RTE.
rte() {
  local i kinds=(entailment not_entailment)
  printf 'index\tsentence1\tsentence2\tlabel\n'
  for ((i = 0; i < $1; ++i)); do printf '%s\tone\ttwo %s\t%s\n' "$i" "$i" "${kinds[i % 2]}"; done
}
join - <(rte 40) <(rte 4) | seed task rte
join - <(printf 'label\ta\tb\nx\tone\ttwo\ny\tthree\tfour\n') <(printf 'label\ta\tb\nx\to\tt\n') |
  seed task pairs

# --- the dictionary ------------------------------------------------------------------------------

# Words of the sources in quotes, as JSON has them; spaces stand between the keys of one list.
grep -ohE '"[A-Za-z_][A-Za-z0-9_ ]*"' nn/text/*.cpp nn/models/*.cpp nn/files/*.cpp peft/*.cpp \
  experiments/data/{row_files,task_files,task_folders}.cpp | tr -d '"' | tr ' ' '\n' |
  awk 'length > 1 && length < 40 && !seen[$0]++ { print "\"\\\"" $0 "\\\"\"" }' > "$out/words.dict"
printf '%s\n' '"\x0a===\x0a"' '"9223372036854775807"' '"18446744073709551615"' '"-1"' '"1e400"' \
  '"null"' '"[]"' '"{}"' '"\\u0000"' '"\xe2\x96\x81"' >> "$out/words.dict"
