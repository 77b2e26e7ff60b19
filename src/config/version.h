/* SPDX-License-Identifier: Apache-2.0 */
/* version.h - the version of the package, "0.1.0". */
#pragma once

#ifdef HAVE_CONFIG_H
#    include <config.h> /* configure's, not config/config.h */
#endif

#define HY3_VERSION PACKAGE_VERSION
