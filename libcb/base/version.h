/* The version of the library. CMake reads these three lines, so that it is written once. */
#ifndef CB_BASE_VERSION_H
#define CB_BASE_VERSION_H

#define CB_VERSION_MAJOR 0
#define CB_VERSION_MINOR 1
#define CB_VERSION_PATCH 0

#endif
