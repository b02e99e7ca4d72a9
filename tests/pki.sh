#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# pki.sh DIR: makes the certificates of the tests in DIR.
#
# Three organisations, adatum.test, treyresearch.test and northwind.test, and one stranger. Keys are
# ECDSA P-256 and certificates run from yesterday to ten years from now, unless the table says
# otherwise. NAME.pem is what a server or client presents (leaf first, then the intermediate, root
# left out), NAME.key is its key. Every adatum leaf comes from adatum's intermediate, so its chain
# file holds two certificates; the others sign with their roots, so theirs hold one.
#
#   adatum-ca        root of adatum.test             adatum-int        its intermediate
#   treyresearch-ca  root of treyresearch.test       other-ca          root that nobody trusts
#   adatum           adatum.test, mx.adatum.test; serverAuth and clientAuth
#   treyresearch     treyresearch.test, mx.treyresearch.test; serverAuth and clientAuth
#   localhost        localhost, 127.0.0.1; from adatum's intermediate
#   adatum-rsa       as adatum, RSA 2048             adatum-weak       as adatum, RSA 1024
#   adatum-expired   ended an hour ago               adatum-future     begins in a year
#   adatum-eku       codeSigning only                adatum-server     serverAuth only
#   adatum-name      mx.northwind.test, a name that is not adatum's
#   self             as adatum, signed by itself     other             as adatum, from other-ca
#   northwind-ca     root of northwind.test          northwind         northwind.test
#   hub, hub-expired   hub.adatum.test, signed by themselves, for direct trust
#
# Of both adatum and treyresearch there are, with the names above but for what is said:
#
#   X-wildcard       *.X.test only                   X-cn              no SAN, CN=X.test
#   X-host           mx.X.test only                  X-revoked         on the list of its issuer
#   X-sha1           signed with SHA-1
#
# and treyresearch-expired, -future, -eku, -server, -weak, -name, -self, -other as those of adatum.
# ISSUER.crl (PEM) and ISSUER.crl.der are the lists of adatum-ca, adatum-int, treyresearch-ca and
# northwind-ca, fresh for ten years.
#
# Idempotent: a complete DIR is left as it is. Made beside DIR and renamed file by file, the stamp
# last, so an interrupted run is simply done again; two runs at once wait for each other. The CA
# keys stay in DIR, so that a test can sign more. Exit: 0 ready, 1 failed (reason on stderr),
# 2 wrong usage. Needs the openssl command only.

set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
unset OPENSSL_CONF

[ $# -eq 1 ] || { echo "usage: ${0##*/} DIR" >&2; exit 2; }
VERSION=2
mkdir -p "$1"
dir=$(cd "$1" && pwd)
stamp=$dir/.complete

complete() { [ "$(cat "$stamp" 2>/dev/null)" = "$VERSION" ]; }
complete && exit 0
exec 9>"$dir/.lock"
flock 9
complete && exit 0

tmp=$dir/.new
rm -rf "$tmp"
mkdir -m 700 "$tmp" "$tmp/issued"
cd "$tmp"
trap 'rm -rf "$tmp"' EXIT

day() { date -u -d "$1" +%Y%m%d%H%M%SZ; }
yesterday=$(day '1 day ago')
decade=$(day '10 years')

cat >conf <<'CONF'
[req]
distinguished_name = dn
prompt = no
[dn]
[ca]
default_ca = signer
[signer]
database = index
new_certs_dir = issued
rand_serial = yes
default_crl_days = 3650
unique_subject = no
default_md = sha256
policy = any
[any]
organizationName = optional
commonName = supplied
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[intermediate]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = $ENV::EKU
subjectAltName = $ENV::SAN
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
[nameless]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = $ENV::EKU
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
[lists]
authorityKeyIdentifier = keyid:always
CONF
: >index
export EKU=serverAuth SAN=DNS:unused.test # the file is read whole each time

# request NAME KEYTYPE SUBJECT: NAME.key and NAME.csr
request() {
	local key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256)
	case $2 in rsa:*) key=(-newkey "$2") ;; esac
	openssl req -new -config conf -batch -nodes "${key[@]}" -keyout "$1.key" -out "$1.csr" -subj "$3"
}

# sign NAME ISSUER SECTION [FROM TO]: NAME.crt; an issuer of its own name is a self-signature
sign() {
	local how=(-cert "$2.crt" -keyfile "$2.key")
	[ "$1" != "$2" ] || how=(-selfsign -keyfile "$1.key")
	openssl ca -config conf -batch -notext -preserveDN "${how[@]}" -extfile conf -extensions "$3" \
		-startdate "${4:-$yesterday}" -enddate "${5:-$decade}" -md "${DIGEST:-sha256}" \
		-in "$1.csr" -out "$1.crt"
}

root() { # NAME SUBJECT
	request "$1" ec "$2"
	sign "$1" "$1" root
	cp "$1.crt" "$1.pem"
}

# leaf NAME ISSUER KEYTYPE EKU SAN [FROM TO]
leaf() {
	local name=$1 issuer=$2 cn=${5##*DNS:}
	EKU=$4
	SAN=$5
	request "$name" "$3" "/O=${issuer%%-*}/CN=${cn%%,*}"
	sign "$name" "$issuer" leaf "${6:-}" "${7:-}"
	cat "$name.crt" >"$name.pem"
	[ "$issuer" != adatum-int ] || cat adatum-int.crt >>"$name.pem"
}

# nameless NAME ISSUER CN: a leaf without a subjectAltName
nameless() {
	EKU=serverAuth,clientAuth
	request "$1" ec "/O=${2%%-*}/CN=$3"
	sign "$1" "$2" nameless
	cat "$1.crt" >"$1.pem"
	[ "$2" != adatum-int ] || cat adatum-int.crt >>"$1.pem"
}

# variants NAME ISSUER: the leafs that both organisations have
variants() {
	local both=serverAuth,clientAuth domain=$1.test
	leaf "$1-wildcard" "$2" ec $both "DNS:*.$domain"
	nameless "$1-cn" "$2" "$domain"
	leaf "$1-host" "$2" ec $both "DNS:mx.$domain"
	leaf "$1-revoked" "$2" ec $both "DNS:$domain,DNS:mx.$domain"
	DIGEST=sha1 leaf "$1-sha1" "$2" ec $both "DNS:$domain,DNS:mx.$domain"
}

# list ISSUER [REVOKED]: ISSUER.crl and ISSUER.crl.der
list() {
	: >index
	[ $# -lt 2 ] || openssl ca -config conf -batch -cert "$1.crt" -keyfile "$1.key" -revoke "$2.crt"
	openssl ca -config conf -batch -cert "$1.crt" -keyfile "$1.key" -gencrl -crlexts lists \
		-crl_lastupdate "$yesterday" -crl_nextupdate "$decade" -out "$1.crl"
	openssl crl -in "$1.crl" -outform DER -out "$1.crl.der"
}

build() {
	local both=serverAuth,clientAuth
	local adatum=DNS:adatum.test,DNS:mx.adatum.test
	local trey=DNS:treyresearch.test,DNS:mx.treyresearch.test

	root adatum-ca '/O=adatum/CN=Adatum Root'
	root treyresearch-ca '/O=treyresearch/CN=Trey Research Root'
	root other-ca '/O=other/CN=Unrelated Root'
	request adatum-int ec '/O=adatum/CN=Adatum Intermediate'
	sign adatum-int adatum-ca intermediate
	cp adatum-int.crt adatum-int.pem

	leaf adatum adatum-int ec $both $adatum
	leaf treyresearch treyresearch-ca ec $both $trey
	leaf localhost adatum-int ec $both IP:127.0.0.1,DNS:localhost
	leaf adatum-rsa adatum-int rsa:2048 $both $adatum
	leaf adatum-weak adatum-int rsa:1024 $both $adatum
	leaf adatum-expired adatum-int ec $both $adatum "$(day '2 days ago')" "$(day '1 hour ago')"
	leaf adatum-future adatum-int ec $both $adatum "$(day '1 year')"
	leaf adatum-eku adatum-int ec codeSigning $adatum
	leaf adatum-server adatum-int ec serverAuth $adatum
	leaf adatum-name adatum-int ec $both DNS:mx.northwind.test
	leaf self self ec $both $adatum
	leaf other other-ca ec $both $adatum

	variants adatum adatum-int
	variants treyresearch treyresearch-ca
	leaf treyresearch-expired treyresearch-ca ec $both $trey "$(day '2 days ago')" "$(day '1 hour ago')"
	leaf treyresearch-future treyresearch-ca ec $both $trey "$(day '1 year')"
	leaf treyresearch-eku treyresearch-ca ec codeSigning $trey
	leaf treyresearch-server treyresearch-ca ec serverAuth $trey
	leaf treyresearch-weak treyresearch-ca rsa:1024 $both $trey
	leaf treyresearch-name treyresearch-ca ec $both DNS:mx.woodgrove.test
	leaf treyresearch-self treyresearch-self ec $both $trey
	leaf treyresearch-other other-ca ec $both $trey

	root northwind-ca '/O=northwind/CN=Northwind Root'
	leaf northwind northwind-ca ec $both DNS:northwind.test,DNS:mx.northwind.test
	leaf hub hub ec $both DNS:hub.adatum.test
	leaf hub-expired hub-expired ec $both DNS:hub.adatum.test "$(day '2 days ago')" "$(day '1 hour ago')"

	list adatum-ca
	list adatum-int adatum-revoked
	list treyresearch-ca treyresearch-revoked
	list northwind-ca
}

umask 077
# A subshell, and its status taken apart from it: set -e does nothing inside a condition.
set +e
(set -e; build) >log 2>&1
status=$?
set -e
if [ $status -ne 0 ]; then
	cat log >&2
	echo "pki.sh: cannot make the certificates" >&2
	exit 1
fi
chmod 644 ./*.pem ./*.crl ./*.crl.der
mv ./*.pem ./*.key ./*.crl ./*.crl.der "$dir"
echo $VERSION >"$stamp"
