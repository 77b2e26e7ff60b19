/* SPDX-License-Identifier: Apache-2.0 */
/* banned.h - functions that overrun or hide errors; using one does not compile. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC poison strcpy strcat sprintf vsprintf gets atoi atol atof strtok
