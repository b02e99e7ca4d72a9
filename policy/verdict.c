/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/verdict.h"

const char *verdict_word(enum verdict verdict)
{
	static const char *const words[VERDICT_COUNT] = {
		[VERDICT_NOT_ASKED] = "NotAsked",
		[VERDICT_EMPTY] = "EmptyCertificate",
		[VERDICT_VALID] = "Valid",
		[VERDICT_UNTRUSTED_ROOT] = "UntrustedRoot",
		[VERDICT_EXPIRED] = "Expired",
		[VERDICT_NOT_YET_VALID] = "NotYetValid",
		[VERDICT_REVOKED] = "Revoked",
		[VERDICT_REVOCATION_UNKNOWN] = "RevocationUnknown",
		[VERDICT_BAD_USAGE] = "BadUsage",
		[VERDICT_WEAK_KEY] = "WeakKey",
		[VERDICT_SIGNATURE_FAILURE] = "SignatureFailure",
		[VERDICT_SUBJECT_MISMATCH] = "SubjectMismatch",
		[VERDICT_PIN_MISMATCH] = "PinMismatch",
		[VERDICT_INVALID] = "Invalid",
	};

	ASSERT(verdict < VERDICT_COUNT);
	return words[verdict];
}
