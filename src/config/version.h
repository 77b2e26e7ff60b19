/* SPDX-License-Identifier: Apache-2.0 */
/* version.h - the version of the package, "0.1.0". */
#ifndef HY3_CONFIG_VERSION_H
#define HY3_CONFIG_VERSION_H

#ifdef HAVE_CONFIG_H
#    include <config.h> /* configure's, not config/config.h */
#endif

#define HY3_VERSION PACKAGE_VERSION

#endif
