#!/usr/bin/env bash
# `docker/with-checkpoint.sh DOCKER COMPOSE RUN... -- SERVICE COMMAND...`, from the Makefile: run COMMAND on the checkpoint
# $CHECKPOINT, with the chat template $CHAT_TEMPLATE if that is set. The container sees both read-only under their own paths,
# and so it sees the files that links of the checkpoint lead to, as in a snapshot of Hugging Face's cache.
set -euo pipefail

fail() {
    echo "$1"
    exit 1
}

run=()
while [[ $1 != -- ]]; do
    run+=("$1")
    shift
done
shift

declare -A mounted=()
mount() { # DIRECTORY_OR_FILE PLACE
    [[ -z ${mounted[$2]:-} ]] || return 0
    [[ $1$2 != *:* ]] || fail "$1 has a colon in its path, which Docker cannot mount; move it"
    mounted[$2]=yes
    run+=(--volume "$1:$2:ro")
}

checkpoint=$(realpath --no-symlinks -- "${CHECKPOINT:?}")
mount "$checkpoint" "$checkpoint"
while IFS= read -r -d '' link; do
    target=$(readlink -- "$link")
    [[ $target == /* ]] || target=${link%/*}/$target
    place=$(realpath --canonicalize-missing --no-symlinks -- "$target")
    file=$(realpath --quiet --canonicalize-existing -- "$link") || continue # it leads nowhere; the build says so if it needs the file
    [[ $place != "$checkpoint"/* ]] || continue
    [[ ${place##*/} == "${file##*/}" ]] || fail "$link leads to a link of another name, $target; copy the checkpoint: cp -rL"
    mount "${file%/*}" "${place%/*}"
done < <(find "$checkpoint/" -type l -print0)

options=()
if [[ -n ${CHAT_TEMPLATE:-} ]]; then
    template=$(realpath --no-symlinks -- "$CHAT_TEMPLATE")
    [[ -f $template ]] || fail "$template is no file; name one: CHAT_TEMPLATE=FILE" # Docker would make it a directory
    mount "$template" "$template"
    options=(--chat-template "$template")
fi
exec "${run[@]}" "$@" "${options[@]}" "$checkpoint"
