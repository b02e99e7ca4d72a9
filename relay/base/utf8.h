/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * utf8.h: which bytes are printable text, for whoever writes down what a peer has said.
 */

#include "relay/base/span.h"

/*
 * How many bytes the UTF-8 character in front has. 0: it is none, or a control (C0, DEL, C1). text
 * is not empty.
 */
size_t utf8_character(struct span text);
