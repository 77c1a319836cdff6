#!/bin/sh
# Stands in for Java, and for the Python of DataX's starter: keeps its arguments, prints the output and ends with the
# exit code that the test laid out in the folder of the installation.
case $1 in
*/bin/datax.py) home=${1%/bin/datax.py} ;;
esac
for argument in "$@"; do
    case $argument in
    -Ddatax.home=*) home=${argument#-Ddatax.home=} ;;
    esac
done
printf '%s\n' "$@" >"$home/argv"
cat "$home/out"
cat "$home/err" >&2
exit "$(cat "$home/code")"
