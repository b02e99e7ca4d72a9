/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * track.h: "track": what the message tracking log says (relay/base/track.h). It reads the files and
 * needs no relay that runs.
 */

#include "relay/ctl/ctl.h"

extern const struct ctl_command ctl_track_commands[];
