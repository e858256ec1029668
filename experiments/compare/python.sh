# Sourced: comparing_python sets $python to a Python with torch, transformers and peft: $PYTHON, or
# else one in a virtual environment that it makes in the user's cache folder.
comparing_python() {
  local venv=${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/graft/compare-venv
  python=${PYTHON:-$venv/bin/python}
  local torch=torch==2.15.0 others=(transformers==5.23.0 peft==0.21.2 safetensors==0.8.0)
  local wanted="$torch ${others[*]}"  # an environment with other versions is brought to these
  if [[ -n ${PYTHON:-} || $(cat "$venv/ready" 2> /dev/null) == "$wanted" ]]; then return; fi
  echo "making or renewing a virtual environment with torch, transformers and peft in $venv"
  rm -f "$venv/ready"
  python3 -m venv "$venv"
  # The build for the CPU is far smaller; where its index is out of reach, PyPI's will do.
  "$python" -m pip install -q "$torch" --index-url https://download.pytorch.org/whl/cpu ||
    "$python" -m pip install -q "$torch"
  "$python" -m pip install -q "${others[@]}"
  echo "$wanted" > "$venv/ready"
}
