#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""profile.py: what a handshake's instructions are spent on, from callgrind's output.

    profile.py [--json NAME] [--top N] COUNT FILE

COUNT is how many handshakes FILE is about. Each instruction belongs to the nearest function above
it (itself included) that names a group; where a function has several callers, its own instructions
are divided among them as callgrind divides the inclusive ones. So the groups add up to all.
Libraries without debugging symbols have the names of their exported functions only, which are
enough: what is called by these alone counts for them.
"""

import argparse
import json
import re
import sys
from collections import defaultdict

# The first that matches wins. "ours" is by the object, not by name: see load().
GROUPS = (
    ("allocation", r"(malloc|free|calloc|realloc|_int_malloc|_int_free|malloc_consolidate"
                   r"|unlink_chunk.*|_int_realloc|sysmalloc|tcache.*|CRYPTO_(z?alloc|malloc|zalloc"
                   r"|realloc|clear_realloc|free|clear_free|strdup|memdup|secure_.*))(@.*)?"),
    ("locks", r"(CRYPTO_THREAD_(read_lock|write_lock|unlock|run_once|get_local|set_local|lock_new"
              r"|lock_free)|CRYPTO_atomic_.*|pthread_(rwlock|mutex|once|getspecific|setspecific"
              r"|self).*|__pthread_.*|___pthread_.*)(@.*)?"),
    ("fetch", r"EVP_(MD|CIPHER|KDF|MAC|RAND|KEYMGMT|KEYEXCH|SIGNATURE|ASYM_CIPHER|KEM)_fetch"
              r"|OSSL_(DECODER|ENCODER|STORE_LOADER)_fetch|inner_evp_generic_fetch"
              r"|evp_generic_fetch.*|ossl_provider_.*|OSSL_PROVIDER_.*"),
    ("key decoding", r"X509_get0_pubkey|X509_get_pubkey|X509_PUBKEY_get0?|d2i_(X509_)?PUBKEY.*"
                     r"|OSSL_DECODER_(from|CTX).*|EVP_PKEY_set1_encoded_public_key"
                     r"|EVP_PKEY_fromdata.*|d2i_PublicKey|EVP_PKEY_copy_parameters"
                     r"|X509_PUBKEY_.*|x509_pubkey_.*"),
    ("signing", r"EVP_DigestSign.*|EVP_PKEY_sign.*|ECDSA_sign.*|ECDSA_do_sign.*"),
    ("verifying", r"EVP_DigestVerify.*|EVP_PKEY_verify.*|ECDSA_verify|ECDSA_do_verify"
                  r"|ASN1_item_verify.*|X509_verify"),
    ("key generation", r"EVP_PKEY_(generate|keygen|paramgen).*|EVP_PKEY_Q_keygen"
                       r"|EC_KEY_generate_key"),
    ("key agreement", r"EVP_PKEY_derive.*|ECDH_compute_key"),
    ("X.509", r"(d2i|i2d)_X509.*|X509_(?!free).*|X509V3_.*|(d2i|i2d)_.*GENERAL_NAME.*"
              r"|GENERAL_NAMES_.*|PEM_.*|X509_NAME_.*|(d2i|i2d)_ASN1.*"),
    ("sessions, tickets", r"(d2i|i2d)_SSL_SESSION|SSL_SESSION_(?!free).*|HMAC.*"),
    ("key schedule", r"EVP_KDF_.*|EVP_MAC_.*|HKDF.*|EVP_Q_mac"),
    ("transcript", r"EVP_Digest(Init|Update|Final).*|EVP_MD_CTX_copy.*|EVP_Digest|EVP_MD_CTX_.*"),
    ("records", r"EVP_(Cipher|Encrypt|Decrypt)(Init|Update|Final)?(_ex2?)?|EVP_CIPHER_CTX_.*"),
    ("random", r"RAND_(priv_)?bytes.*|EVP_RAND_.*"),
    ("objects made and freed", r"SSL_(new|free|clear|CTX_.*|dup.*)|BIO_(new|free.*|up_ref)"
                               r"|X509_free|SSL_SESSION_free"),
)
OTHER = "other OpenSSL and libc"
COMPILED = [(name, re.compile("(?:" + rule + r")(?:'\d+)?\Z")) for name, rule in GROUPS]


class Profile:
    """Own instructions of functions, and arcs between them with inclusive ones."""

    def __init__(self):
        self.own = defaultdict(int)
        self.arcs = defaultdict(lambda: defaultdict(int))  # callee -> caller -> inclusive
        self.object = {}
        self.names = {}

    def name(self, kind, text):
        """Decompresses "(12) name"; "(12)" alone stands for what it stood for before."""
        match = re.match(r"\((\d+)\)(?: (.*))?\Z", text)
        if match is None:
            return text
        key = (kind, match.group(1))
        if match.group(2) is not None:
            self.names[key] = match.group(2)
        return self.names[key]

    def load(self, path):
        """Reads callgrind's format, as far as it is written without --dump-instr."""
        here = there = thing = called_thing = None
        is_call = False
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                line = line.rstrip("\n")
                if line.startswith("ob="):
                    thing = called_thing = self.name("ob", line[3:])
                elif line.startswith("fn="):
                    here = self.name("fn", line[3:])
                    self.object[here] = thing
                    called_thing = thing
                elif line.startswith("cob="):
                    called_thing = self.name("ob", line[4:])
                elif line.startswith("cfn="):
                    there = self.name("fn", line[4:])
                    self.object.setdefault(there, called_thing)
                elif line.startswith("calls="):
                    is_call = True
                elif re.match(r"[0-9+*-]", line):
                    cost = int(line.split()[1]) if len(line.split()) > 1 else 0
                    if is_call:
                        self.arcs[there][here] += cost
                        called_thing = thing
                    else:
                        self.own[here] += cost
                    is_call = False

    def group_of(self, name, ours):
        """The group that a function names, or None."""
        for group, rule in COMPILED:
            if rule.match(name):
                return group
        if ours is not None and (self.object.get(name) or "").endswith(ours):
            return "ours"
        return None

    def shares(self, ours):
        """{group: {function: instructions}}."""
        fixed = {}
        functions = set(self.own) | set(self.arcs)
        for name in functions:
            group = self.group_of(name, ours)
            if group is not None:
                fixed[name] = {group: 1.0}
        belongs = {name: fixed.get(name, {OTHER: 1.0}) for name in functions}
        # Recursion makes cycles, so until it stands still; a few rounds do.
        for _ in range(60):
            moved = 0.0
            for name in functions:
                callers = self.arcs.get(name)
                total = sum(callers.values()) if callers else 0
                if name in fixed or total == 0:
                    continue
                new = defaultdict(float)
                for caller, cost in callers.items():
                    for group, part in belongs.get(caller, {}).items():
                        new[group] += part * cost / total
                moved += sum(abs(new[g] - belongs[name].get(g, 0)) for g in new)
                belongs[name] = dict(new)
            if moved < 1e-6:
                break
        sums = defaultdict(lambda: defaultdict(float))
        for name, cost in self.own.items():
            for group, part in belongs[name].items():
                # What OpenSSL does for a call of ours that names no group is OpenSSL's.
                if group == "ours" and name not in fixed:
                    group = OTHER
                sums[group][name] += cost * part
        return sums


def main():
    """Prints a table, or one row of JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="NAME")
    parser.add_argument("--top", type=int, default=0, help="functions with most of each group")
    parser.add_argument("--ours", default="/bench/handshake", help="end of our object's path")
    parser.add_argument("count", type=int)
    parser.add_argument("file")
    args = parser.parse_args()
    profile = Profile()
    profile.load(args.file)
    groups = profile.shares(args.ours)
    sums = {group: sum(parts.values()) for group, parts in groups.items()}
    total = sum(profile.own.values())
    if total == 0 or args.count < 1:
        sys.exit("profile.py: nothing was collected in " + args.file)
    ordered = sorted(sums.items(), key=lambda item: -item[1])
    if args.json is not None:
        print(json.dumps({"name": args.json, "unit": "instructions",
                          "value": round(total / args.count),
                          "shares": {k: round(v / total, 4) for k, v in ordered}},
                         separators=(",", ":")))
        return
    print(f"  {total / args.count:12.0f} instructions")
    for group, cost in ordered:
        print(f"  {cost / args.count:12.0f} {100 * cost / total:6.1f} %  {group}")
        parts = sorted(groups[group].items(), key=lambda item: -item[1])
        for name, own in parts[:args.top]:
            print(f"    {own / args.count:10.0f} {100 * own / total:6.1f} %    {name}"
                  f"  {(profile.object.get(name) or '').rsplit('/', 1)[-1]}")


main()
