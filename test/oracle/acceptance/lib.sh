# Sourced on the host by the acceptance scripts.
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../env.sh"
ACC=$ORACLE_SRC/acceptance
vm() { setpriv --pdeathsig KILL "$ORACLE_SRC/vm-run" "$@"; }
KERNEL=${KERNEL:-stock}
cleanup=()
trap 'for p in ${cleanup[@]+"${cleanup[@]}"}; do kill "$p" 2>/dev/null || :; done' EXIT
freeport() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }

# nbd_endpoint URI: sets NBD_PORT and NBD_EXPORT; a unix socket is bridged to a loopback port
nbd_endpoint() {
	local u=$1 sock
	case $u in
	nbd://*|nbds://*)
		NBD_TLS=; case $u in nbds://*) NBD_TLS=${TLS_DIR:?TLS_DIR must name a directory with ca-cert.pem (and client-cert.pem, client-key.pem)} ;; esac
		u=${u#nbd://}; u=${u#nbds://}
		NBD_EXPORT=; case $u in */*) NBD_EXPORT=${u#*/} ;; esac
		u=${u%%/*}
		case ${u%%:*} in 127.0.0.1|localhost) ;; *) echo "only the host's loopback is reachable: $1" >&2; exit 2 ;; esac
		NBD_PORT=10809; case $u in *:*) NBD_PORT=${u##*:} ;; esac ;;
	nbd+unix://*)
		NBD_TLS=
		sock=${u##*socket=}; u=${u#nbd+unix://}; u=${u%%\?*}; NBD_EXPORT=${u#/}
		NBD_PORT=$(freeport)
		setpriv --pdeathsig KILL socat "TCP-LISTEN:$NBD_PORT,bind=127.0.0.1,fork,reuseaddr,nodelay" "UNIX-CONNECT:$sock" &
		cleanup+=($!); sleep 0.3 ;;
	*) echo "not an NBD URI: $u" >&2; exit 2 ;;
	esac
	NBD_ARGS=(-e NBD_PORT="$NBD_PORT" -e NBD_EXPORT="$NBD_EXPORT")
	if [ -n "$NBD_TLS" ]; then
		NBD_ARGS+=(-f "$NBD_TLS/ca-cert.pem=ca.pem" -e "TLS_ARGS=-enable-tls -cacertfile /host/ca.pem -tlshostname ${TLS_NAME:-localhost}")
		if [ -e "$NBD_TLS/client-cert.pem" ]; then
			NBD_ARGS+=(-f "$NBD_TLS/client-cert.pem=c.pem" -f "$NBD_TLS/client-key.pem=k.pem" -e "TLS_ARGS=-enable-tls -cacertfile /host/ca.pem -tlshostname ${TLS_NAME:-localhost} -certfile /host/c.pem -keyfile /host/k.pem")
		fi
	fi
}
